"""Texts that carry a given relevance: every query asks for one attribute, and its documents are those that name it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from isometry.diagnostics.limit.patterns import Relevance
from isometry.errors import InputError
from isometry.types import Document

_FIRST = (
    "Ada Alma Amos Anouk Arlo Beatriz Boris Bruna Cyrus Dalia Delphine Dmitri Edda Elio Esther Faris Fergus Freya "
    "Gideon Greta Hana Hugo Ida Imre Ines Ivo Jasper Johanna Kaito Kerstin Leila Linus Lotte Mateo Mira Nadia Nils "
    "Odile Oskar Paloma Petra Quentin Ramon Renata Rosalind Saskia Selim Sigrid Tariq Thea Tomas Ulrike Vera Viggo "
    "Wanda Wilma Xenia Yara Yusuf Zelda"
)
_LAST = (
    "Abara Achterberg Almgren Baptiste Bergamo Brandvold Calloway Castellano Dahlberg Delacroix Drummond Eastwick "
    "Eriksen Fairbairn Fontaine Galbraith Grimaldi Haverford Holmqvist Ibarra Ilves Jankowski Jelinek Kallio Kavanagh "
    "Kobayashi Lacroix Lindqvist Macready Marchetti Mwangi Nakagawa Nordstrom Oakhurst Okafor Orlov Pemberton Petrov "
    "Quigley Rasmussen Redfern Rousseau Salonen Santoro Strand Tavares Thackeray Ueda Valdez Vandermeer Villanueva "
    "Wakefield Weller Whitcombe Xanthos Yamada Ybarra Zamora Zeller Zielinski"
)


@dataclass(frozen=True)
class TemplateCorpus:
    """Documents, queries by id, and grades by query and document id: what BEIR folders hold."""

    documents: list[Document]
    queries: dict[str, str]
    qrels: dict[str, dict[str, int]]


def make_corpus(
    relevance: Relevance,
    attributes: Sequence[str],
    *,
    names: Sequence[str] | None = None,
    per_document: int = 45,
    distractors: int = 0,
    document: str = "{name} likes {attributes}.",
    query: str = "Who likes {attribute}?",
    seed: int = 0,
) -> TemplateCorpus:
    """Write a retrieval set in which the judgments, and nothing else, decide the texts (arXiv:2508.21038, section 5).

    Every query gets an attribute of its own, which its relevant documents name; every document is filled up to
    ``per_document`` attributes with random ones that no query asks for, and lists them in random order.

    Parameters
    ----------
    attributes
        Of any domain; see `distinct_attributes`. At least as many as there are queries and fillers.
    names
        One for each document and distractor, used as id; people's names where not given.
    distractors
        Further documents, which name no attribute of a query.
    document, query
        Templates.

    Raises
    ------
    InputError
        If an attribute is part of another, names repeat, a template lacks its field, or there are too few of either.
    """
    m, n = relevance.shape
    total = n + distractors
    people = person_names(total, seed=seed) if names is None else list(names)[:total]
    _check(attributes, people, total, document, query)
    carried = np.bincount(relevance.documents, minlength=total)
    if carried.max() > per_document:
        raise InputError(f"one document answers {carried.max()} queries; per_document must be at least that.")
    if len(attributes) < m + per_document - carried.min():
        needed = m + per_document - int(carried.min())
        raise InputError(f"{m} queries and {per_document} a document need {needed} attributes, got {len(attributes)}.")
    rng = np.random.default_rng(seed)
    shuffled = [attributes[i] for i in rng.permutation(len(attributes))]
    asked, fillers = shuffled[:m], shuffled[m:]
    liked: list[list[str]] = [[] for _ in range(total)]
    for i, j in zip(relevance.queries.tolist(), relevance.documents.tolist(), strict=True):
        liked[j].append(asked[i])
    documents = []
    for name, own in zip(people, liked, strict=True):
        own += [fillers[i] for i in rng.choice(len(fillers), per_document - len(own), replace=False)]
        mixed = [own[i] for i in rng.permutation(len(own))]
        listed = f"{', '.join(mixed[:-1])} and {mixed[-1]}" if len(mixed) > 1 else mixed[0]
        documents.append(Document(name, document.format(name=name, attributes=listed)))
    qrels: dict[str, dict[str, int]] = {}
    for i, j in zip(relevance.queries.tolist(), relevance.documents.tolist(), strict=True):
        qrels.setdefault(f"query_{i}", {})[people[j]] = 1
    return TemplateCorpus(documents, {f"query_{i}": query.format(attribute=a) for i, a in enumerate(asked)}, qrels)


def _check(attributes: Sequence[str], names: Sequence[str], total: int, document: str, query: str) -> None:
    if len(kept := distinct_attributes(attributes)) < len(attributes):
        lost = next(a for a in attributes if a not in kept) if len(set(attributes)) == len(attributes) else "a repeat"
        raise InputError(f"attributes must not be part of each other ({lost!r}); pass distinct_attributes(attributes).")
    if len(names) < total or len(set(names)) < len(names):
        raise InputError(f"{total} documents need as many distinct names, got {len(set(names))} distinct of {total}.")
    if "{name}" not in document or "{attributes}" not in document or "{attribute}" not in query:
        raise InputError("the document template needs {name} and {attributes}, the query template {attribute}.")


def distinct_attributes(attributes: Iterable[str]) -> list[str]:
    """Return the attributes without those that hold an earlier or shorter one, or repeat it, whatever the case.

    A keyword search for "Bass" would else find "Bass Guitars".

    >>> distinct_attributes(["Bass Guitars", "Bass", "Tea", "tea"])
    ['Bass', 'Tea']
    """
    given = list(dict.fromkeys(attributes))
    kept: list[str] = []
    for attribute in sorted(given, key=len):
        if attribute.strip() and not any(other.casefold() in attribute.casefold() for other in kept):
            kept.append(attribute)
    chosen = set(kept)
    return [attribute for attribute in given if attribute in chosen]


def person_names(count: int, *, seed: int = 0) -> list[str]:
    """Return that many distinct made-up names: first and last, with an initial where these do not suffice."""
    initials = ["", *(f"{letter}. " for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ")]
    firsts, lasts = _FIRST.split(), _LAST.split()
    if count > (most := len(firsts) * len(lasts) * len(initials)):
        raise InputError(f"there are {most} made-up names, {count} are needed; pass names of your own.")
    needed = -(-count // (len(firsts) * len(lasts)))
    pool = [f"{first} {initial}{last}" for initial, first, last in product(initials[:needed], firsts, lasts)]
    return [pool[i] for i in np.random.default_rng(seed).permutation(len(pool))[:count]]
