"""Questions that take two steps: the answer is linked from what the question finds, and shares no word with it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from isometry.errors import InputError

_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class TwoHop:
    """A corpus, its links, and the items one must reach.

    ``ids`` are the items of the corpus, sorted; ``links`` the pairs (source, target) among them; ``qrels`` holds, by
    the id of the item that a question names, grade 1 for each item linked from it.
    """

    ids: list[str]
    links: list[tuple[str, str]]
    qrels: dict[str, dict[str, int]]


def two_hop_questions(
    questions: Mapping[str, str],
    texts: Mapping[str, str],
    links: Iterable[tuple[str, str]],
    *,
    count: int,
    size: int,
    seed: int = 0,
) -> TwoHop:
    """Draw items whose links lead to texts that share no word with the question for the item.

    Parameters
    ----------
    questions
        By id of an item, a question that finds it, e.g. its name.
    texts
        Text by id.
    links
        Pairs (source, target) of ids.
    count
        How many questions; fewer if there are not as many.
    size
        Items of the corpus: those asked for and what they link to, filled up at random.
    seed
        Of the draws.

    Raises
    ------
    InputError
        If no item qualifies.

    Examples
    --------
    >>> made = two_hop_questions({"a": "beagle"}, {"a": "beagle: a hound", "b": "hound: a dog"}, [("a", "b")],
    ...                          count=1, size=2)
    >>> made.qrels
    {'a': {'b': 1}}
    """
    pairs = sorted(set(links))
    to: dict[str, dict[str, int]] = {}
    for source, target in pairs:
        to.setdefault(source, {})[target] = 1
    words = {identity: set(_WORD.findall(text.casefold())) for identity, text in texts.items()}

    def silent(source: str) -> bool:
        asked = set(_WORD.findall(questions[source].casefold()))
        return not any(asked & words[target] for target in to[source])

    able = [source for source in to if source in questions and silent(source)]
    if not able:
        raise InputError("No item links to texts without a word of its question; give more links, or other questions.")
    rng = np.random.default_rng(seed)
    asked = [able[i] for i in rng.choice(len(able), min(count, len(able)), replace=False)]
    held = {*asked, *(target for source in asked for target in to[source])}
    rest = [i for i in sorted(texts) if i not in held]
    more = min(max(0, size - len(held)), len(rest))
    held |= {rest[i] for i in rng.choice(len(rest), more, replace=False)} if more else set()
    kept = [(s, t) for s, t in pairs if s in held and t in held]
    return TwoHop(sorted(held), kept, {source: to[source] for source in asked})
