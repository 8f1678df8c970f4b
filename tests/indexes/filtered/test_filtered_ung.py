"""UNG: minimal supersets by definition, and what a search can reach."""

import numpy as np
import pytest

from isometry.indexes.filtered import UNG, Attributes, Contains, contains_all
from isometry.indexes.filtered.ung import LabelSets


def cloud(n, seed=0, d=12):
    x = np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def tagged(n, seed=0, tags=6):
    rng = np.random.default_rng(seed)
    return [
        {"tags": [t for t in range(tags) if rng.random() < 0.4], "year": int(rng.integers(0, 50))} for _ in range(n)
    ]


def reached(links, counts, starts, mask=None):
    seen, front = set(starts), list(starts)
    while front:
        node = front.pop()
        for other in links[node, : counts[node]].tolist():
            if other not in seen and (mask is None or mask[other]):
                seen.add(other)
                front.append(other)
    return seen


def test_minimal_supersets_against_their_definition():
    rng = np.random.default_rng(0)
    sets = sorted({tuple(np.flatnonzero(rng.random(6) < 0.5).tolist()) for _ in range(40)} - {()})
    found = LabelSets(sets)
    for wanted in [(), (0,), (1, 2), *sets]:
        for proper in (False, True):
            above = [i for i, s in enumerate(sets) if set(wanted) <= set(s) and not (proper and set(s) == set(wanted))]
            minimal = [i for i in above if not any(set(sets[j]) < set(sets[i]) for j in above)]
            assert found.minimal_supersets(wanted, proper=proper) == minimal


@pytest.mark.parametrize("asked", [Contains("tags", 0), Contains("tags", 5), contains_all("tags", (1, 3))])
def test_ung_reaches_all_that_have_the_labels_and_nothing_else(asked):
    items = Attributes(tagged(500))
    index = UNG.build(cloud(500), items, "tags", degree=12, width=40)
    found = reached(index.links, index.counts, index.entries(asked).tolist())
    matches = set(np.flatnonzero(items.mask(asked)).tolist())
    assert found <= matches
    assert len(found) >= 0.98 * len(matches)
