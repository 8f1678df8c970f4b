"""Rows to tune on, by kind, and the order they come in."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from isometry.errors import InputError
from isometry.negatives import DistinctBatches
from isometry.training.tuning import ROW_KINDS, RowKind
from isometry.types import normal_text

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

COLUMNS = {"pairs": 2, "triplets": 3, "labelled": 2, "sts": 2}
MIN_ROWS = 8


@dataclass(frozen=True)
class Rows:
    """Columns of texts, and one number per row where the kind has them.

    Parameters
    ----------
    kind
        See `isometry.training.Tuning`.
    columns
        Two or three sequences of texts of one length.
    labels
        Class numbers (labelled) or similarities in 0..1 (sts).
    dropped
        Rows left out on the way here, by reason.

    Raises
    ------
    InputError
        If columns and labels do not fit, a text is empty, or there are fewer rows than training can use.
    """

    kind: RowKind
    columns: tuple[Sequence[str], ...]
    labels: Sequence[float] | None = None
    dropped: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in ROW_KINDS or len(self.columns) != COLUMNS[self.kind]:
            raise InputError(f"Rows of kind {self.kind!r} need {COLUMNS.get(self.kind)} columns of texts.")
        if len({len(column) for column in self.columns}) > 1:
            raise InputError(f"The columns have {[len(c) for c in self.columns]} rows; they must have equally many.")
        needs = self.kind in ("labelled", "sts")
        if needs != (self.labels is not None) or (self.labels is not None and len(self.labels) != len(self)):
            what = "class numbers" if self.kind == "labelled" else "similarities"
            raise InputError(f"Rows of kind {self.kind!r} need {f'one of the {what} a row' if needs else 'no labels'}.")
        for number, row in enumerate(zip(*self.columns, strict=True), 1):
            if not all(text.strip() for text in row):
                raise InputError(f"Row {number} has an empty text; leave it out or fill it in.")
        if len(self) < MIN_ROWS:
            raise InputError(f"There are {len(self)} rows to train on; at least {MIN_ROWS} are needed.")
        self._check_labels()

    def _check_labels(self) -> None:
        if self.labels is None:
            return
        values = np.asarray(self.labels, np.float64)
        if not np.isfinite(values).all():
            raise InputError(f"Row {int(np.flatnonzero(~np.isfinite(values))[0]) + 1} has a label that is no number.")
        if len(set(values.tolist())) < 2:
            what = "one class" if self.kind == "labelled" else "one similarity"
            raise InputError(f"All {len(self)} rows have {what}, so nothing can be told apart; add others.")
        if self.kind == "sts" and not (values.min() >= 0 and values.max() <= 1):
            raise InputError(f"Similarities must lie in 0..1, got {values.min():g} to {values.max():g}; rescale them.")

    def __len__(self) -> int:
        return len(self.columns[0])

    def take(self, rows: Sequence[int]) -> Rows:
        """Return some of the rows."""
        columns = tuple([column[row] for row in rows] for column in self.columns)
        return Rows(self.kind, columns, None if self.labels is None else [self.labels[row] for row in rows])


def distinct(rows: Rows) -> Rows:
    """Leave out rows that repeat an earlier one, and rows whose query is its own positive (up to case and space)."""
    seen: set[tuple[object, ...]] = set()
    kept, dropped = [], dict(rows.dropped)
    for number, texts in enumerate(zip(*rows.columns, strict=True)):
        key = tuple(normal_text(text) for text in texts)
        reason = "repeated" if key in seen else "both sides equal" if key[0] == key[1] and rows.kind != "sts" else ""
        seen.add(key)
        if reason:
            dropped[reason] = dropped.get(reason, 0) + 1
        else:
            kept.append(number)
    if len(kept) < MIN_ROWS:
        raise InputError(
            f"Only {len(kept)} of {len(rows)} rows are distinct; training needs at least {MIN_ROWS}. Add other rows."
        )
    taken = rows.take(kept)
    return Rows(rows.kind, taken.columns, taken.labels, dropped)


def labelled_rows(texts: Sequence[str], labels: Sequence[str], *, seed: int = 0) -> Rows:
    """Pair each text with another of its class, drawn at random; classes of one text are left out and counted.

    Raises
    ------
    InputError
        If fewer than two classes have two different texts.
    """
    members: dict[str, list[int]] = defaultdict(list)
    for row, (text, label) in enumerate(zip(texts, labels, strict=True)):
        if text.strip():
            members[label].append(row)
    usable = {label: rows for label, rows in members.items() if len({normal_text(texts[r]) for r in rows}) > 1}
    if len(usable) < 2:
        raise InputError(
            f"Tuning on classes needs at least two with two different texts each; found {len(usable)} of "
            f"{len(members)}. Add texts, or check that the label column is the right one."
        )
    rng = np.random.default_rng(seed)
    left, right, numbers = list[str](), list[str](), list[float]()
    for number, label in enumerate(sorted(usable)):
        for row in usable[label]:
            others = [r for r in usable[label] if normal_text(texts[r]) != normal_text(texts[row])]
            if others:
                left.append(texts[row])
                right.append(texts[others[int(rng.integers(len(others)))]])
                numbers.append(float(number))
    dropped = {"of a class with one text": len(texts) - len(left)} if len(left) < len(texts) else {}
    return Rows("labelled", (left, right), numbers, dropped)


def fitting_size(rows: Rows, most: int, *, same_class: bool = False, seed: int = 0) -> int:
    """Return the largest of ``most``, a half, a quarter ... of it that batches of these rows can have."""
    size = min(most, len(rows))
    while size > 2:
        try:
            batches(rows, 2 + 2 * len(rows) // size, size, same_class=same_class, seed=seed)
            return size
        except InputError:
            size //= 2
    return max(size, 2)


def batches(rows: Rows, steps: int, batch_size: int, *, same_class: bool = False, seed: int = 0) -> list[list[int]]:
    """Return exactly ``steps`` batches of row numbers, pass after pass, without a text twice in a batch.

    Labelled rows of one class do not meet in a batch while there are twice as many classes as rows in a batch, unless
    ``same_class`` allows it. The same arguments give the same batches, so that an interrupted run can go on.

    Raises
    ------
    InputError
        If not even one full batch can be made.
    """
    size = min(batch_size, len(rows))
    keys: list[Iterable[Hashable]]
    if rows.kind == "sts":
        keys = [{row} for row in range(len(rows))]
    elif rows.kind == "labelled" and not same_class and len(set(rows.labels or ())) >= 2 * size:
        keys = [{label} for label in rows.labels or ()]
    else:
        keys = [{normal_text(text) for text in texts} for texts in zip(*rows.columns, strict=True)]
    sampler = DistinctBatches(keys, size, seed=seed)
    made: list[list[int]] = []
    for epoch in range(steps):
        sampler.set_epoch(epoch)
        before = len(made)
        made += list(sampler)
        if len(made) >= steps:
            break
        if len(made) == before:
            raise InputError(
                f"No batch of {size} rows without a repeated text can be made of {len(rows)} rows; use a smaller "
                "batch size, or rows with more different texts."
            )
    return made[:steps]
