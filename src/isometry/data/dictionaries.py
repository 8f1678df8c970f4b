"""Dictionaries: entries and their definitions, with synonyms sorted out."""

from __future__ import annotations

import csv
import gzip
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from isometry.errors import DataFormatError, EmptyInput, InputError

MORE = "<|list_more_def|>"
Rows = Iterable[tuple[str, Sequence[str]]]


@dataclass(frozen=True)
class Dictionary:
    """Entries, definitions, and which entries each definition defines.

    Parameters
    ----------
    entries
        Words or phrases; entries with the very same definitions are one, named ``"a | b"``.
    definitions
        Distinct texts.
    owners
        By definition, the entries it defines, ascending: more than one where entries share a sense but not all.
    """

    entries: tuple[str, ...]
    definitions: tuple[str, ...]
    owners: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, rows: Rows) -> Dictionary:
        """Build from (entry, definitions) rows; rows of one entry are joined, blank definitions left out.

        Two entries with one definition would contradict each other as labels: where all their definitions agree they
        are merged, else the definition has several owners.

        Examples
        --------
        >>> d = Dictionary.of([("car", ["a vehicle"]), ("auto", ["a vehicle"]), ("coach", ["a vehicle", "a trainer"])])
        >>> d.entries, d.owners
        (('car | auto', 'coach'), ((0, 1), (1,)))
        """
        by_entry: dict[str, dict[str, None]] = {}
        for entry, definitions in rows:
            texts = (" ".join(text.split()) for text in definitions)
            by_entry.setdefault(entry.strip(), {}).update(dict.fromkeys(text for text in texts if text))
        groups: dict[frozenset[str], list[str]] = {}
        for entry, found in by_entry.items():
            if entry and found:
                groups.setdefault(frozenset(found), []).append(entry)
        if not groups:
            raise EmptyInput("A dictionary needs at least one entry with a definition.")
        owners: dict[str, list[int]] = {}
        for number, names in enumerate(groups.values()):
            for text in by_entry[names[0]]:
                owners.setdefault(text, []).append(number)
        return cls(
            tuple(" | ".join(names) for names in groups.values()), tuple(owners), tuple(map(tuple, owners.values()))
        )

    def __len__(self) -> int:
        return len(self.definitions)

    @property
    def shared(self) -> int:
        """Definitions with several entries."""
        return sum(len(entries) > 1 for entries in self.owners)

    def leaks(self) -> NDArray[np.bool_]:
        """Return bool ``[n]``: whether a definition holds the name of one of its entries as whole words."""
        return np.array([
            any(_holds(text, name) for entry in entries for name in self.entries[entry].split(" | "))
            for text, entries in zip(self.definitions, self.owners, strict=True)
        ])  # fmt: skip

    def only(self, entries: Sequence[int]) -> Dictionary:
        """Keep some entries, numbered anew in the order given, with their definitions.

        >>> d = Dictionary.of([("car", ["a vehicle"]), ("coach", ["a vehicle", "a trainer"])]).only([1])
        >>> d.entries, d.definitions, d.owners
        (('coach',), ('a vehicle', 'a trainer'), ((0,), (0,)))
        """
        place = {entry: i for i, entry in enumerate(entries)}
        own = [tuple(sorted(place[e] for e in owners if e in place)) for owners in self.owners]
        return Dictionary(
            tuple(self.entries[entry] for entry in place),
            tuple(text for text, mine in zip(self.definitions, own, strict=True) if mine),
            tuple(mine for mine in own if mine),
        )

    def split(self, held_out: NDArray[np.bool_]) -> tuple[Dictionary, list[tuple[str, tuple[int, ...]]]]:
        """Take definitions out: return the rest, and the others with their entries.

        Raises
        ------
        InputError
            If an entry would be left without a definition.
        """
        kept = [i for i, out in enumerate(held_out) if not out]
        if len(held_out) != len(self) or len({e for i in kept for e in self.owners[i]}) < len(self.entries):
            raise InputError("Every entry must keep a definition, and held_out name each definition: choose fewer.")
        rest = Dictionary(
            self.entries, tuple(self.definitions[i] for i in kept), tuple(self.owners[i] for i in kept)
        )  # fmt: skip
        return rest, [(self.definitions[i], self.owners[i]) for i in np.flatnonzero(held_out)]


def _holds(text: str, name: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text, re.IGNORECASE) is not None


def read_dictionary(path: str | Path) -> Iterator[tuple[str, list[str]]]:
    """Read rows of ``entry <tab> definition`` (more definitions after ``<|list_more_def|>``).

    WordNet's ``synsets.tsv.gz`` gives one row for each lemma of a synset, ``jsonl`` rows with ``word`` and
    ``definitions`` one each. Files may be gzipped.

    Raises
    ------
    DataFormatError
        If a line has no definition.
    """
    path = Path(path)
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield from _parse(path.name, line.rstrip("\n"), number)
            except (ValueError, KeyError, IndexError, TypeError) as error:
                problem = f"this is no entry with its definitions ({error}); expected 'entry<tab>definition'."
                raise DataFormatError(path, number, problem) from error


def _parse(name: str, line: str, number: int) -> Iterator[tuple[str, list[str]]]:
    if ".jsonl" in name:
        row = json.loads(line)
        yield str(row["word"]), [str(text) for text in row["definitions"]]
        return
    cells = next(csv.reader([line], delimiter="\t", quoting=csv.QUOTE_NONE), [])
    if name.startswith("synsets.tsv"):
        if number > 1:
            for lemma in cells[2].split("|"):
                yield lemma, [cells[3]]
        return
    entry, definitions = cells
    yield entry, definitions.split(MORE)
