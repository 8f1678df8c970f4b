"""Which rows to keep, by a learned threshold, and how wide each field is, by evolutionary search."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isometry.modules.embedding_tables.evolution import Candidate, evolve
from isometry.modules.embedding_tables.table import CompressedEmbedding, Stage, StageContext, Store, positions


def step_through(margin: Tensor) -> Tensor:
    """1 where the margin is positive, else 0, with the long-tailed estimator's gradient (Liu et al., ICLR 2020)."""
    size = margin.detach().abs()
    slope = torch.where(size <= 0.4, 2 - 4 * size, torch.where(size <= 1, 0.4, 0.0))
    through = slope * margin
    return (margin > 0).float() + (through - through.detach())


class OptEmbedding(CompressedEmbedding):
    """Optimal embedding table (OptEmbed; Lyu et al., CIKM 2022).

    1. Supernet: rows count where their L1 norm exceeds a threshold learned per field (penalty 1e-5 sum exp(-t)); each
       batch uses random prefixes of the vectors. 2. Evolutionary search of the fields' widths on validation quality,
       within the budget. 3. The kept rows are trained anew at these widths; the others are zero.

    Of the rows above their threshold, only as many are kept, by margin, as the budget allows at half width. The sorted
    list of kept rows takes 4 bytes each.

    Parameters
    ----------
    generations
        Rounds of the search (30 in the paper).
    """

    stages: ClassVar[tuple[Stage, ...]] = (
        Stage("supernet"), Stage("evolve", trains=False), Stage("retrain", fresh=True),
    )  # fmt: skip
    threshold_lr = 1e-4

    def _build(self, limit: float, generations: int = 30, **options: Any) -> None:
        self.limit, self.generations, least = limit, generations, len(self.fields) * 8
        self._need(True if limit >= least else None, least)
        self.table = self._normal(self.n, self.d)
        self.thresholds = nn.Parameter(torch.zeros(len(self.fields)))
        self.widths: Candidate | None = None

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """Learn the thresholds at their own rate."""
        if "thresholds" not in self._parameters:
            return super().parameter_groups(lr)
        return [{"params": [self.table], "lr": lr}, {"params": [self.thresholds], "lr": self.threshold_lr}]

    def _margins(self, rows: Tensor, fields: Tensor, weights: Store) -> Tensor:
        return rows.abs().sum(1) - weights["thresholds"][fields]

    def _look(self, weights: Store, ids: Tensor) -> Tensor:
        if "kept" in weights:
            return self._kept_rows(weights, ids)
        rows, fields = F.embedding(ids, weights["table"]), self.field_of(ids)
        if self.training:
            widths = torch.randint(1, self.d + 1, (len(self.fields),), generator=self.generator)
        else:
            widths = torch.tensor(self.widths or [self.d] * len(self.fields))
        inside = torch.arange(self.d) < widths[fields][:, None]
        return rows * step_through(self._margins(rows, fields, weights))[:, None] * inside

    def penalty(self) -> Tensor | None:
        """``1e-5 sum exp(-t)`` over the thresholds, while they learn."""
        return 1e-5 * (-self.thresholds).exp().sum() if "thresholds" in self._parameters else None

    def begin_stage(self, stage: Stage, context: StageContext) -> None:
        """Search the widths; then make the tables that were found."""
        if stage.name == "evolve":
            self._search(context)
        elif stage.name == "retrain":
            self._settle()

    def _chosen(self, margins: Tensor) -> Tensor:
        """Sorted rows to keep: above their threshold, at most what fits at half width, one of each field at least."""
        most = max(len(self.fields), int(self.limit // (4 + 4 * max(1, self.d // 2))))
        starts = torch.tensor([0, *self.fields.values()]).cumsum(0)
        best = [int(s) + int(part.argmax()) for s, part in zip(starts, torch.split(margins, list(self.fields.values())),
                                                               strict=False)]  # fmt: skip
        ranked = margins.clone()
        ranked[best] = torch.inf
        kept = (ranked > 0).nonzero().squeeze(1)
        if len(kept) > most:
            kept = ranked.topk(most).indices
        return kept.sort().values

    def _counts(self, kept: Tensor) -> list[int]:
        return torch.bincount(self.field_of(kept), minlength=len(self.fields)).tolist()

    def _search(self, context: StageContext) -> None:
        with torch.no_grad():
            margins = self._margins(self.table, self.field_of(self.rows_of_all()), self.weights())
            kept = self._chosen(margins)
            gone = torch.ones(self.n, dtype=torch.bool)
            gone[kept] = False
            self.table[gone] = 0.0
        self.register_buffer("chosen", kept)
        counts = self._counts(kept)

        def allowed(widths: Candidate) -> bool:
            return sum(4 * c * w for c, w in zip(counts, widths, strict=True)) + 4 * len(kept) <= self.limit

        def score(widths: Candidate) -> float:
            self.widths = widths
            return context.evaluate()

        start = [(w,) * len(counts) for w in range(1, self.d + 1)]
        choices = [range(1, self.d + 1)] * len(counts)
        self.widths, self.config["quality"] = evolve(start, score, allowed, choices, generations=self.generations,
                                                     seed=self.seed)  # fmt: skip

    def _settle(self) -> None:
        kept = self.get_buffer("chosen")
        counts = self._counts(kept)
        assert self.widths is not None
        self._make(kept, counts, list(self.widths))

    def _make(self, kept: Tensor, counts: list[int], widths: list[int]) -> None:
        self._parameters.clear()
        self._buffers.clear()
        self.config |= {"widths": widths, "counts": counts}
        self.register_buffer("kept", kept.to(torch.int32))
        for f, (count, width) in enumerate(zip(counts, widths, strict=True)):
            self.register_parameter(f"rows{f}", self._normal(count, width))

    def _kept_rows(self, weights: Store, ids: Tensor) -> Tensor:
        place, hit = positions(weights["kept"], ids)
        fields, found, start = self.field_of(ids), torch.zeros(len(ids), self.d), 0
        for f, (count, width) in enumerate(zip(self.config["counts"], self.config["widths"], strict=True)):
            mine = (hit & (fields == f)).nonzero().squeeze(1)
            if len(mine):
                rows = F.embedding(place[mine] - start, weights[f"rows{f}"])
                found = found.index_copy(0, mine, F.pad(rows, (0, self.d - width)))
            start += count
        return found

    def _pack(self) -> dict[str, Tensor]:
        if "thresholds" in self._parameters:
            self._fit_rows(self.table.detach().clone())
        return super()._pack()

    def _fit_rows(self, table: Tensor) -> None:
        """Keep the rows of largest L1 norm at the largest common width that fits, cut to that prefix."""
        kept = self._chosen(table.abs().sum(1))
        counts = self._counts(kept)
        width = max(1, min(self.d, int((self.limit / 4 - len(kept)) // max(1, len(kept)))))
        self._make(kept, counts, [width] * len(counts))
        for f, rows in enumerate(torch.split(kept, counts)):
            with torch.no_grad():
                getattr(self, f"rows{f}").copy_(table[rows, :width])
