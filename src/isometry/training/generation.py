"""Generation-augmented representation learning: one network embeds and generates (ULLME's GRL, arXiv:2408.03402).

Seen both ways, the network embeds; seen causally, it generates. Three losses train the modes together: contrastive on
projected vectors, a preference for the positive passage given the query, and agreement of the two relevance scores.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from isometry.errors import EmptyInput, InputError
from isometry.modules.attention_mask import run
from isometry.modules.pooling.plain import pool
from isometry.objectives.generation import agreement_loss, passage_labels, preference_loss, sequence_log_probs
from isometry.objectives.nt_xent import group_labels, multi_similarity_pairs, nt_xent
from isometry.training.gradient_caching import embed_cached
from isometry.training.special_tokens import padded

Ids = Sequence[int]


@dataclass(frozen=True)
class QueryGroup:
    """A query with its passages, all as token numbers: the unit of a batch, so that rows never mix queries."""

    query: Ids
    positives: Sequence[Ids]
    negatives: Sequence[Ids]

    def __post_init__(self) -> None:
        if not self.positives or not all(map(len, self.texts)):
            raise InputError("A group needs a query and at least one positive passage, and none of its texts empty.")

    @property
    def passages(self) -> list[Ids]:
        """Positives, then negatives."""
        return [*self.positives, *self.negatives]

    @property
    def texts(self) -> list[Ids]:
        """Query, positives, negatives: the order of `group_labels`."""
        return [self.query, *self.passages]


@dataclass(frozen=True)
class GRLConfig:
    """Settings of `GRL`; the defaults are those of the authors' program.

    Parameters
    ----------
    contrast, generation, agreement
        Weights of the three losses; 0 leaves one out.
    temperature, distance, miner_epsilon
        Of NT-Xent on projected vectors; a number for the miner keeps only pairs that are hard by that margin.
    preference, beta, label_smoothing
        Of `preference_loss`, without a reference. Sums of log-probabilities but for ``sft`` and ``ipo``.
    agreement_temperature, direction
        Of `agreement_loss`, on means of log-probabilities.
    pooling
        Of bidirectional states: ``"mean"``, ``"weighted_mean"``, ``"last"`` or ``"cls"``.
    """

    contrast: float = 1.0
    generation: float = 1.0
    agreement: float = 1.0
    temperature: float = 0.05
    distance: Literal["cosine", "euclidean"] = "euclidean"
    miner_epsilon: float | None = None
    preference: str = "sigmoid"
    beta: float = 0.1
    label_smoothing: float = 0.1
    agreement_temperature: float = 0.1
    direction: Literal["generation", "retrieval"] = "generation"
    pooling: str = "mean"

    def __post_init__(self) -> None:
        if self.agreement and self.preference == "sft" and self.generation:
            raise InputError("Agreement needs a preference loss beside it: set agreement=0 with preference='sft'.")
        if min(self.contrast, self.generation, self.agreement) < 0:
            raise InputError("Weights of losses must be >= 0.")


@dataclass
class GenerationPrompt:
    """Token numbers around a query before its passage is generated: ``before + query + between + passage``."""

    before: Ids = field(default_factory=tuple)
    between: Ids = field(default_factory=tuple)

    @classmethod
    def of(cls, tokenizer: Any, instruction: str = "Write a passage that answers the query") -> GenerationPrompt:
        """Tokenize the instruction with a line that announces the query, and the empty line after it."""
        texts = (f"{instruction}. Query:\n", "\n\n")
        return cls(*(tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts))


class GRL(nn.Module):
    """A decoder that embeds bidirectionally and generates causally, with the losses that train both.

    Parameters
    ----------
    lm
        A transformers causal language model.
    prompt
        What stands around a query when passages are scored.
    config
        Losses and their settings.
    seed
        Of the projector, a linear, ReLU, linear head used in training only: `vectors` are what is searched,
        `projected` what NT-Xent sees.
    """

    def __init__(
        self, lm: Any, *, prompt: GenerationPrompt | None = None, config: GRLConfig | None = None, seed: int = 0
    ) -> None:
        super().__init__()
        self.lm, self.prompt, self.config = lm, prompt or GenerationPrompt(), config or GRLConfig()
        d = lm.config.hidden_size
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.projector = nn.Sequential(nn.Linear(d, d), nn.ReLU(), nn.Linear(d, d))

    def vectors(self, rows: Sequence[Ids], *, kind: str = "bidirectional") -> Tensor:
        """Return normalised vectors ``[n, d]`` of texts: what the trained model is used for."""
        return normalize(self._pooled(rows, kind), dim=-1)

    def projected(self, rows: Sequence[Ids]) -> Tensor:
        """Return the projector's normalised outputs ``[n, d]``, for the contrastive loss only."""
        return normalize(self.projector(self._pooled(rows, "bidirectional")), dim=-1)

    def likelihoods(
        self, queries: Sequence[Ids], passages: Sequence[Ids], *, reduction: Literal["mean", "sum"] = "mean"
    ) -> Tensor:
        """Return the log-likelihood ``[n]`` of each passage given its query, by causal generation."""
        heads = [[*self.prompt.before, *query, *self.prompt.between] for query in queries]
        if not min(map(len, heads), default=0):
            raise EmptyInput("There is no query to score passages for.")
        ids, mask = padded([[*head, *passage] for head, passage in zip(heads, passages, strict=True)])
        logits = self.lm.get_output_embeddings()(run(self.lm, mask, input_ids=ids))
        labels = passage_labels(ids, torch.tensor([len(head) for head in heads]), mask)
        return sequence_log_probs(logits, labels, reduction=reduction)

    def contrastive(self, groups: Sequence[QueryGroup], projected: Tensor) -> Tensor:
        """NT-Xent over all texts of all groups; projected vectors ``[n, d]`` in the order of `QueryGroup.texts`."""
        labels = group_labels([(len(g.positives), len(g.negatives)) for g in groups])
        config, pairs = self.config, None
        if config.miner_epsilon is not None:
            pairs = multi_similarity_pairs(projected, labels, epsilon=config.miner_epsilon, distance=config.distance)
        return nt_xent(projected, labels, temperature=config.temperature, distance=config.distance, pairs=pairs)

    def local(self, groups: Sequence[QueryGroup]) -> Tensor:
        """Weighted generation and agreement losses, which need no other group: the mean over groups."""
        config = self.config
        total = torch.zeros(())
        if not (config.generation or config.agreement):
            return total
        queries = [group.query for group in groups for _ in group.passages]
        passages = [passage for group in groups for passage in group.passages]
        sums, parts = self.likelihoods(queries, passages, reduction="sum"), [len(group.passages) for group in groups]
        means = torch.split(sums / torch.tensor(list(map(len, passages))), parts)
        if config.generation:
            scores = means if config.preference in ("sft", "ipo") else torch.split(sums, parts)
            total = total + config.generation * self._preference(groups, scores)
        if config.agreement:
            vectors = self.vectors([text for group in groups for text in group.texts])
            cosines = [v[1:] @ v[0] for v in torch.split(vectors, [n + 1 for n in parts])]
            total = total + config.agreement * self._agreement(cosines, means)
        return total

    def forward(self, groups: Sequence[QueryGroup]) -> Tensor:
        """Return the total loss of a batch, all activations kept."""
        total = self.local(groups)
        if self.config.contrast:
            projected = self.projected([text for group in groups for text in group.texts])
            total = total + self.config.contrast * self.contrastive(groups, projected)
        return total

    def accumulate(self, groups: Sequence[QueryGroup], *, chunk: int = 1) -> float:
        """Put the gradients of a batch into the parameters with memory for ``chunk`` groups; return the loss.

        The contrastive gradient is exact (GradCache); the other losses need their own group only.
        """
        if chunk < 1 or not groups:
            raise InputError(f"Accumulation needs at least one group and chunk >= 1, got {len(groups)} and {chunk}.")
        parts, total = [groups[i : i + chunk] for i in range(0, len(groups), chunk)], 0.0
        steps: list[Callable[[], Tensor]] = [
            lambda part=part: len(part) / len(groups) * self.local(part)  # type: ignore[misc]
            for part in parts
        ]
        if self.config.contrast:
            rows = [[text for group in part for text in group.texts] for part in parts]
            steps.append(lambda: self.config.contrast * self.contrastive(groups, embed_cached(self.projected, rows)))
        for step in steps:
            value = step()
            if value.requires_grad:
                value.backward()  # type: ignore[no-untyped-call]
            total += float(value.detach())
        return total

    def _agreement(self, cosines: Sequence[Tensor], means: Sequence[Tensor]) -> Tensor:
        """Mean over groups, whose candidates may differ in number."""
        config = self.config
        how: dict[str, Any] = {"temperature": config.agreement_temperature, "direction": config.direction}
        return torch.stack(
            [agreement_loss(c[None], m[None], **how) for c, m in zip(cosines, means, strict=True)]
        ).mean()

    def _preference(self, groups: Sequence[QueryGroup], scores: Sequence[Tensor]) -> Tensor:
        """Preference of every positive over every negative of its own group: mean within groups, then over them."""
        config, losses = self.config, list[Tensor]()
        how: dict[str, Any] = {"beta": config.beta, "label_smoothing": config.label_smoothing}
        for group, score in zip(groups, scores, strict=True):
            n, m = len(group.positives), len(group.negatives)
            if not m and config.preference != "sft":
                raise InputError(f"The preference loss {config.preference!r} needs negatives; a group has none.")
            chosen, rejected = score[:n].repeat_interleave(max(m, 1)), score[n:].repeat(n)
            losses.append(preference_loss(chosen, rejected if m else chosen, kind=config.preference, **how))
        return torch.stack(losses).mean()

    def _pooled(self, rows: Sequence[Ids], kind: str) -> Tensor:
        ids, mask = padded(rows)
        return pool(run(self.lm, mask, input_ids=ids, kind=kind), mask, self.config.pooling)
