"""Free embeddings: query and document vectors trained on the judgments themselves, the best case of any encoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from isometry.diagnostics.limit.margins import ranking_margins
from isometry.diagnostics.limit.patterns import Relevance
from isometry.errors import InputError
from isometry.types import FloatArray
from isometry.types.progress import Progress

if TYPE_CHECKING:
    import torch

    Tensor = torch.Tensor


class Training(NamedTuple):
    """How free embeddings are trained; the defaults are those of arXiv:2508.21038.

    Parameters
    ----------
    temperature, rate
        Of the softmax, and of Adam.
    iterations, patience, gain
        At most so many steps; fewer where ``patience`` of them lowered the loss by no more than ``gain``.
    check_every
        Steps between two checks for success.
    cells
        Scores held at a time: larger problems go through the softmax in chunks of queries.
    device
        A torch device.
    """

    temperature: float = 0.1
    rate: float = 0.01
    iterations: int = 100_000
    patience: int = 1000
    gain: float = 1e-5
    check_every: int = 50
    cells: int = 1 << 26
    device: str = "cpu"


@dataclass(frozen=True, eq=False)
class FreeEmbeddings:
    """What free optimisation found.

    Parameters
    ----------
    queries, documents
        Unit rows, float32 ``[m, d]`` and ``[n, d]``.
    accuracy
        Share of relevant pairs among the best of their query, ties counted as misses.
    margin
        Smallest difference, over queries, between a relevant document's cosine and another's: above 0 if and only if
        every query is ranked without error.
    loss, iterations
        At the end.
    """

    queries: FloatArray
    documents: FloatArray
    accuracy: float
    margin: float
    loss: float
    iterations: int

    @property
    def solved(self) -> bool:
        """Whether every query ranks its documents above all others, strictly."""
        return self.margin > 0


def train_free_embeddings(
    relevance: Relevance,
    dim: int,
    *,
    seed: int = 42,
    training: Training = Training(),  # noqa: B008  a tuple cannot change
    progress: Progress | None = None,
) -> FreeEmbeddings:
    """Projected Adam on spheres under the full-batch InfoNCE of several positives (arXiv:2508.21038, section 4).

    Vectors start from N(0, 1) and are scaled to norm 1 after every step, queries and documents alike. The loss is the
    mean over relevant pairs of ``-log softmax(<q, d> / T)`` with one softmax over all documents: the other relevant
    documents of a query stay in its denominator. Training ends with success, checked strictly.

    Success or failure is a fact about this optimiser, its temperature and float32, not about the geometry: for all
    k-subsets `witness` gives exact vectors in 2k dimensions where this search fails.

    Raises
    ------
    InputError
        If ``dim`` is below 1, or a number of the training is not positive.
    """
    if dim < 1 or min(training[:4]) <= 0 or training.check_every < 1:
        raise InputError(f"dim and the numbers of the training must be positive, got {dim} and {training}.")
    problem = _Problem(relevance, dim, seed, training)
    best, waited, loss, step = float("inf"), 0, float("inf"), 0
    for step in range(1, training.iterations + 1):
        loss = problem.step()
        best, waited = (loss, 0) if loss < best - training.gain else (best, waited + 1)
        if step % training.check_every == 0 or waited >= training.patience:
            if problem.accuracy() == 1.0:
                break
            if progress is not None:
                progress(step, training.iterations)
        if waited >= training.patience:
            break
    queries, documents = problem.vectors()
    margin = float(ranking_margins(queries, documents, relevance).min())
    return FreeEmbeddings(queries, documents, problem.accuracy(), margin, loss, step)


class _Problem:
    """Vectors, their gradient in closed form, and Adam: queries and documents are one table ``[m + n, d]``."""

    def __init__(self, relevance: Relevance, dim: int, seed: int, training: Training) -> None:
        import torch

        self.m, n = relevance.shape
        self.training = training
        generator = torch.Generator().manual_seed(seed)
        device = torch.device(training.device)
        rows = torch.randn(self.m + n, dim, generator=generator)
        self.table = torch.nn.functional.normalize(rows).to(device).requires_grad_()
        self.gradient = self.table.grad = torch.zeros_like(self.table)
        self.adam = torch.optim.Adam([self.table], lr=training.rate)
        self.pairs = (torch.from_numpy(relevance.queries).to(device), torch.from_numpy(relevance.documents).to(device))
        self.counts = torch.from_numpy(relevance.counts).to(device)
        rows_at_once = max(1, training.cells // n)
        edges = [*range(0, self.m, rows_at_once), self.m]
        cuts = np.searchsorted(relevance.queries, edges)
        self.chunks = list(zip(edges, edges[1:], cuts, cuts[1:], strict=False))

    def step(self) -> float:
        """Take one step, return the loss before it."""
        import torch

        with torch.no_grad():
            loss = self._gradient()
            self.adam.step()
            self.table.div_(self.table.norm(dim=1, keepdim=True))
        return loss

    def _gradient(self) -> float:
        """Fill the table's gradient and return the loss.

        With P the softmax of a query's scores and c its number of relevant documents, the gradient of its scores is
        ``(c P - Y) / (pairs * T)``.
        """
        import torch

        queries, documents = self.table[: self.m], self.table[self.m :]
        gradient = self.gradient
        gradient[self.m :] = 0
        scale = 1 / (len(self.pairs[0]) * self.training.temperature)
        total = torch.zeros((), dtype=torch.float64, device=self.table.device)
        for start, stop, first, last in self.chunks:
            rows, columns = self.pairs[0][first:last] - start, self.pairs[1][first:last]
            scores = queries[start:stop] @ documents.T
            scores /= self.training.temperature
            logs = torch.log_softmax(scores, dim=1)
            total -= logs[rows, columns].sum(dtype=torch.float64)
            slope = logs.exp_().mul_(self.counts[start:stop, None])
            slope.index_put_((rows, columns), slope[rows, columns] - 1)
            slope.mul_(scale)
            gradient[start:stop] = slope @ documents
            gradient[self.m :] += slope.T @ queries[start:stop]
        return float(total) / len(self.pairs[0])

    def accuracy(self) -> float:
        """Share of relevant pairs ranked strictly above the first document that no longer fits."""
        import torch

        hits = 0
        with torch.no_grad():
            queries, documents = self.table[: self.m], self.table[self.m :]
            most = min(int(self.counts.max()) + 1, len(documents))
            for start, stop, first, last in self.chunks:
                rows, columns = self.pairs[0][first:last] - start, self.pairs[1][first:last]
                scores = queries[start:stop] @ documents.T
                ranked = torch.nn.functional.pad(scores.topk(most).values, (0, 1), value=-torch.inf)
                beyond = ranked.gather(1, self.counts[start:stop, None])[:, 0]
                hits += int((scores[rows, columns] > beyond[rows]).sum())
        return hits / len(self.pairs[0])

    def vectors(self) -> tuple[FloatArray, FloatArray]:
        """Queries and documents as they are now."""
        table: FloatArray = self.table.detach().cpu().numpy().copy()
        return table[: self.m], table[self.m :]
