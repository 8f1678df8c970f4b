"""Links by mention: a text that uses the name of another item points to it."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

from isometry.errors import InputError
from isometry.ranking.neighbour_graph import Edge

_WORD = re.compile(r"[\w'-]+")


def mention_edges(
    texts: Mapping[str, str], names: Mapping[str, Sequence[str]], *, shortest: int = 4, most: int = 50, words: int = 3
) -> list[Edge]:
    """Symbolic edges from each text to the items whose names it contains, of type "mentions".

    Names are matched as whole words, case folded. A name that several items share is ambiguous and is left out, as is
    one that very many texts use, since it says nothing about any of them.

    Parameters
    ----------
    texts
        Text by id.
    names
        Names of each id, e.g. titles or lemmas.
    shortest
        Least number of characters of a name.
    most
        An item mentioned by more texts than this gets no edge.
    words
        Longest name, in words.

    Examples
    --------
    >>> mention_edges({"a": "a breed of hound", "b": "a dog used for hunting"}, {"a": ["beagle"], "b": ["Hound"]})
    [Edge(source='a', target='b', type='mentions', weight=1.0)]
    """
    if shortest < 1 or most < 1 or words < 1:
        raise InputError(f"shortest, most and words must be at least 1, got {shortest}, {most} and {words}.")
    bearers: dict[str, set[str]] = defaultdict(set)
    for identity, own in names.items():
        for name in own:
            bearers[" ".join(_WORD.findall(name.casefold()))].add(identity)
    single = {name: min(ids) for name, ids in bearers.items() if len(ids) == 1 and len(name) >= shortest}
    edges = []
    for source, text in texts.items():
        targets = {single[gram] for gram in _grams(_WORD.findall(text.casefold()), words) if gram in single}
        edges += [Edge(source, target, "mentions") for target in sorted(targets - {source})]
    often = Counter(edge.target for edge in edges)
    return [edge for edge in edges if often[edge.target] <= most]


def _grams(words: Sequence[str], longest: int) -> Iterator[str]:
    for size in range(1, longest + 1):
        for start in range(len(words) - size + 1):
            yield " ".join(words[start : start + size])
