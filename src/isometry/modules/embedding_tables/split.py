"""Several fields: the small ones in full, the large ones compressed, one budget over all."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isometry.errors import InputError
from isometry.modules.embedding_tables.methods import compressed_table
from isometry.modules.embedding_tables.table import CompressedEmbedding, Stage, StageContext, Store
from isometry.numerics.budget import BudgetInfeasible, infeasible


class SplitEmbedding(CompressedEmbedding):
    """Compress only fields of more than ``threshold`` rows, so hard that the whole meets the budget.

    Parameters
    ----------
    method
        Name of the method for the large fields (see `METHODS`).
    threshold
        Fields of at most so many rows stay full.
    """

    def _build(self, limit: float, method: str = "hash", threshold: int = 100, **options: Any) -> None:
        sizes = list(self.fields.values())
        large = [size > threshold for size in sizes]
        if not any(large):
            raise InputError(f"No field has more than {threshold} rows; use an ordinary table.")
        self.config |= {"large": large, "inner": {}}
        which = torch.tensor(large)[self.field_of(self.rows_of_all())]
        small, n = int((~which).sum()), int(which.sum())
        self.small = self._normal(small, self.d)
        budget = (limit - 4 * small * self.d) / (4 * n * self.d)
        fields = {name: size for (name, size), big in zip(self.fields.items(), large, strict=True) if big}
        try:
            self.inner = compressed_table(method, n, self.d, max(budget, 1e-12), freq=self.freq[which.numpy()],
                                          fields=fields, seed=self.seed, **options)  # fmt: skip
        except BudgetInfeasible as error:
            least = (error.least * n + small) / self.n
            raise infeasible(f"{method} with {small} rows in full", self.budget, least) from error

    @property
    def train_hooks(self) -> tuple[Stage, ...]:
        """The stages of the method."""
        return self.inner.train_hooks

    def begin_stage(self, stage: Stage, context: StageContext) -> None:
        """Pass the stage on."""
        self.inner.begin_stage(stage, context)

    def second_parameters(self) -> list[nn.Parameter]:
        """Those of the method."""
        return self.inner.second_parameters()

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """Those of the method, and the full rows."""
        return [*self.inner.parameter_groups(lr), {"params": [self.small], "lr": lr}]

    @property
    def second_lr(self) -> float:  # type: ignore[override]
        """That of the method."""
        return self.inner.second_lr

    def penalty(self) -> Tensor | None:
        """That of the method."""
        return self.inner.penalty()

    @property
    def settled(self) -> bool:
        """Whether the method is."""
        return self.inner.settled

    def after_step(self) -> None:
        """Pass the step on."""
        self.inner.after_step()

    def _places(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return (whether a row is in the compressed table, its row there or among the full ones)."""
        sizes, large = torch.tensor(list(self.fields.values())), torch.tensor(self.config["large"])
        before = torch.stack([(sizes * ~large).cumsum(0), (sizes * large).cumsum(0)])
        before = before - torch.stack([sizes * ~large, sizes * large])
        field = self.field_of(ids)
        big = large[field]
        return big, ids - (sizes.cumsum(0) - sizes)[field] + before[big.long(), field]

    def _join(self, ids: Tensor, small: Tensor, table: CompressedEmbedding, weights: Store, *, final: bool) -> Tensor:
        big, place = self._places(ids)
        inner = table._look_stored(weights, place[big]) if final else table._look(weights, place[big])
        found = torch.zeros(len(ids), self.d).index_copy(
            0, (~big).nonzero().squeeze(1), F.embedding(place[~big], small)
        )
        return found.index_copy(0, big.nonzero().squeeze(1), inner)

    def _look(self, weights: Store, ids: Tensor) -> Tensor:
        return self._join(ids, weights["small"], self.inner, self.inner.weights(), final=False)

    def _pack(self) -> dict[str, Tensor]:
        packed = self.inner._pack()
        self.config["inner"] = self.inner.about()
        return {"small": self.small.detach().clone(), **{f"inner.{name}": value for name, value in packed.items()}}

    def _look_stored(self, store: Store, ids: Tensor) -> Tensor:
        weights = {name.removeprefix("inner."): value for name, value in store.items() if name.startswith("inner.")}
        table = CompressedEmbedding.restore(self.config["inner"], weights)
        return self._join(ids, store["small"], table, weights, final=True)

    def _fit_rows(self, table: Tensor) -> None:
        big, place = self._places(self.rows_of_all())
        self.small[place[~big]] = table[~big]
        self.inner._fit_rows(table[big])
