"""Small damages to text: typos, shuffled words, lost words, crops; positives for training, and tests of robustness."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np

from isometry.errors import InputError, UnknownName

ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
TYPOS = ("insert", "delete", "substitute", "swap")
_SEGMENT = re.compile(r"([^,;:.!?]+)")


def _neighbours() -> dict[str, str]:
    """Letters beside each letter of a QWERTY keyboard: in its row, and just above and below."""
    found = {c: set[str]() for row in ROWS for c in row}
    for y, row in enumerate(ROWS):
        for x, c in enumerate(row):
            for other, places in ((row, (x - 1, x + 1)), (ROWS[y + 1] if y < 2 else "", (x - 1, x))):
                for place in places:
                    if 0 <= place < len(other):
                        found[c].add(other[place])
                        found[other[place]].add(c)
    return {c: "".join(sorted(others)) for c, others in found.items()}


KEYS = _neighbours()


def typos(text: str, count: int, rng: np.random.Generator, *, kinds: Sequence[str] = TYPOS) -> str:
    """Make ``count`` typing errors, each in another random place among the letters.

    Parameters
    ----------
    kinds
        Of ``"insert"`` (a neighbouring key is hit too), ``"delete"``, ``"substitute"`` (a neighbouring key instead) and
        ``"swap"`` (with the next letter, if that is another one; else a substitution). Capitals stay capitals.

    Examples
    --------
    >>> typos("embedding", 0, np.random.default_rng(0))
    'embedding'
    """
    if count < 0:
        raise InputError(f"The number of typos must be >= 0, got {count}.")
    for kind in kinds:
        if kind not in TYPOS:
            raise UnknownName("typo", kind, TYPOS)
    letters = [i for i, c in enumerate(text) if c.lower() in KEYS]
    if not letters or not count:
        return text
    chosen = sorted(rng.choice(letters, min(count, len(letters)), replace=False).tolist(), reverse=True)
    characters = list(text)
    for place in chosen:  # from the back, so that earlier places stay where they are
        _mistype(characters, place, str(rng.choice(kinds)), rng)
    return "".join(characters)


def _mistype(characters: list[str], place: int, kind: str, rng: np.random.Generator) -> None:
    c = characters[place]
    near = str(rng.choice(list(KEYS[c.lower()])))
    near = near.upper() if c.isupper() else near
    after = characters[place + 1] if place + 1 < len(characters) else c
    if kind == "swap" and after != c and after.isalpha():
        characters[place : place + 2] = [after, c]
    elif kind == "delete" and len(characters) > 1:
        del characters[place]
    elif kind == "insert":
        characters.insert(place + 1, near)
    else:
        characters[place] = near


def shuffle_words(text: str, rng: np.random.Generator) -> str:
    """Put all words in random order; the words are the same."""
    words = text.split()
    return " ".join(words[i] for i in rng.permutation(len(words)))


def shuffle_within(text: str, rng: np.random.Generator) -> str:
    """Shuffle the words inside each sub-sentence (between punctuation), its first and last word staying in place.

    >>> shuffle_within("a b, c d.", np.random.default_rng(0))
    'a b, c d.'
    """

    def shuffled(match: re.Match[str]) -> str:
        part = match.group()
        words = part.split()
        if len(words) < 4:
            return part
        inner = [words[1 + i] for i in rng.permutation(len(words) - 2)]
        lead, tail = part[: len(part) - len(part.lstrip())], part[len(part.rstrip()) :]
        return lead + " ".join([words[0], *inner, words[-1]]) + tail

    return _SEGMENT.sub(shuffled, text)


def drop_words(text: str, count: int, rng: np.random.Generator) -> str:
    """Leave out ``count`` random words, but never the last one left."""
    words = text.split()
    gone = set(rng.permutation(len(words))[: min(count, max(0, len(words) - 1))].tolist())
    return " ".join(word for i, word in enumerate(words) if i not in gone) if gone else text


def crop_words(text: str, share: float, rng: np.random.Generator) -> str:
    """Keep a random run of at least ``share`` of the words."""
    if not 0 < share <= 1:
        raise InputError(f"The share of words kept must be in (0, 1], got {share}.")
    words = text.split()
    least = max(1, int(np.ceil(share * len(words))))
    if least >= len(words):
        return text
    size = int(rng.integers(least, len(words) + 1))
    start = int(rng.integers(0, len(words) - size + 1))
    return " ".join(words[start : start + size])


def mix_damages(text: str, count: int, rng: np.random.Generator) -> str:
    """Apply ``count`` damages in turn, each a typo, a lost word or a shuffle within sub-sentences."""
    for _ in range(count):
        kind = int(rng.integers(3))
        text = [typos(text, 1, rng), drop_words(text, 1, rng), shuffle_within(text, rng)][kind]
    return text


PERTURBATIONS: dict[str, Callable[[str, int, np.random.Generator], str]] = {
    "typos": typos,
    "shuffle": lambda text, count, rng: shuffle_words(text, rng) if count else text,
    "shuffle within": lambda text, count, rng: shuffle_within(text, rng) if count else text,
    "mixed": mix_damages,
    "drop": drop_words,
}


def perturb(texts: Sequence[str], kind: str, *, strength: int, seed: int = 0) -> list[str]:
    """Damage texts: row i by its own random numbers, nothing at strength 0.

    Parameters
    ----------
    kind
        ``"typos"``, ``"shuffle"`` (all words), ``"shuffle within"`` (sub-sentences, ends fixed), ``"mixed"``
        (``strength`` operations of several sorts), ``"drop"``.
    strength
        Number of operations; for shuffles anything above 0 is the same.

    Raises
    ------
    UnknownName
        If there is no such kind.
    InputError
        If strength is negative.
    """
    if kind not in PERTURBATIONS:
        raise UnknownName("perturbation", kind, PERTURBATIONS)
    if strength < 0:
        raise InputError(f"strength must be >= 0, got {strength}.")
    return [PERTURBATIONS[kind](text, strength, np.random.default_rng((seed, i))) for i, text in enumerate(texts)]
