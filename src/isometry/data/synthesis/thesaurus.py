"""Words of the same and of the opposite meaning."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from isometry.errors import DataFormatError


@dataclass(frozen=True)
class Thesaurus:
    """Words of the same and of the opposite meaning, in lower case; empty by default."""

    synonyms: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    antonyms: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def wordnet(cls, folder: str | Path) -> Thesaurus:
        """Read a folder with WordNet's ``synsets.tsv.gz`` and ``relations.tsv.gz``.

        Synonyms are given only for words of one single meaning in WordNet, since a rule cannot tell meanings apart;
        antonyms for words that come first in a synset that has an opposite.

        Raises
        ------
        DataFormatError
            If a file is missing or has other columns.
        """
        root = Path(folder)
        lemmas = {row["id"]: row["lemmas"].split("|") for row in _rows(root / "synsets.tsv.gz", ("id", "lemmas"))}
        senses: dict[str, list[str]] = {}
        for synset, words in lemmas.items():
            for word in words:
                senses.setdefault(word, []).append(synset)
        synonyms = {
            word: tuple(other for other in lemmas[found[0]] if other != word and other.islower())
            for word, found in senses.items()
            if len(found) == 1 and word.isalpha() and word.islower() and len(lemmas[found[0]]) > 1
        }
        antonyms: dict[str, set[str]] = {}
        for row in _rows(root / "relations.tsv.gz", ("id", "relation", "target")):
            if row["relation"] == "antonym":
                antonyms.setdefault(lemmas[row["id"]][0], set()).add(lemmas[row["target"]][0])
        opposite = {word: tuple(sorted(others)) for word, others in antonyms.items()}
        return cls({word: others for word, others in synonyms.items() if others}, opposite)


def _rows(path: Path, columns: tuple[str, ...]) -> Iterator[dict[str, str]]:
    try:
        with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            if missing := set(columns) - set(reader.fieldnames or ()):
                raise DataFormatError(path, 1, f"columns {sorted(missing)} are missing.")
            yield from reader
    except OSError as error:
        raise DataFormatError(path, None, f"WordNet cannot be read here ({error.strerror or error}).") from error
