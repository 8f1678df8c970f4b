"""Wide vectors for small fields, narrow ones for large fields, by a power law."""

from __future__ import annotations

import math
from typing import Any

from isometry.modules.embedding_tables.field_dimensions import FieldDimensionEmbedding
from isometry.numerics.budget import smallest_within


class MixedDimensionEmbedding(FieldDimensionEmbedding):
    """Mixed dimensions (MDE; Ginart et al., ISIT 2021): ``d_f`` is d times ``(n_f / n_smallest)^-alpha``.

    Widths are rounded to powers of two, at least 1; the smallest alpha that fits the budget is found by bisection.
    Where keeping the smallest field wide is too much (or it is the only field), it is ``n_f^-alpha`` for all.
    """

    def _build(self, limit: float, **options: Any) -> None:
        sizes = list(self.fields.values())
        unit = min(sizes) if len(sizes) > 1 and self._size(self.dims_at(50.0, min(sizes))) <= limit else 1
        alpha = smallest_within(lambda a: self._size(self.dims_at(a, unit)), 0.0, 50.0, limit)
        alpha = self._need(alpha, self._size(self.dims_at(50.0, unit)))
        self.config["alpha"] = alpha
        self._make_fields(self.dims_at(alpha, unit))

    def dims_at(self, alpha: float, unit: int = 1) -> list[int]:
        """Width of each field at an alpha; fields of ``unit`` rows keep d."""
        ideal = (self.d * (size / unit) ** -alpha for size in self.fields.values())
        return [self.d if width > 0.75 * self.d else 2 ** round(math.log2(max(1.0, width))) for width in ideal]

    def _size(self, dims: list[int]) -> float:
        return sum(self.field_bytes(size, width) for size, width in zip(self.fields.values(), dims, strict=True))
