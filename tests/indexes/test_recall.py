import numpy as np
import pytest

from isometry.errors import InputError
from isometry.indexes import HNSW, Exact, check_recall
from isometry.types import Embeddings, Hits, Space, id_array

SPACE = Space("s", 4, similarity="dot", normalized=False)


def index_of(x, ids):
    return Exact.of(Embeddings(np.asarray(x, np.float32), id_array(ids), SPACE))


class Fixed:
    """An index that always answers the same ids."""

    exact = False

    def __init__(self, ids, answers):
        self.ids, self.answers = id_array(ids), answers

    def __len__(self):
        return len(self.ids)

    def search(self, queries, k, where=None):
        return Hits.build(queries.ids, [[(a, 99.0) for a in self.answers]] * len(queries), k=k)


def test_exact_has_full_recall_and_wrong_answers_have_none():
    rng = np.random.default_rng(0)
    oracle = index_of(rng.standard_normal((40, 4)), map(str, range(40)))
    queries = Embeddings(rng.standard_normal((3, 4)), id_array("abc"), SPACE)
    assert check_recall(oracle, oracle, queries, 5).by_unit("recall@5") == {"a": 1, "b": 1, "c": 1}
    one = queries.take([0])
    best = [i for i, _ in oracle.search(one, 40).row(0)]
    for answers, expected in ((best[20:25], 0), (best[:2] + best[30:33], 0.4), (best[:1], 0.2), ([], 0)):
        fixed = Fixed(oracle.ids, answers)
        assert check_recall(fixed, oracle, one, 5).values.tolist() == pytest.approx([expected])


def test_a_tie_may_be_broken_either_way():
    oracle = index_of([[1, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0]], "abc")
    query = Embeddings(np.array([[1.0, 0, 0, 0]]), id_array("q"), SPACE)
    assert check_recall(Fixed("abc", ["b"]), oracle, query, 1).values.tolist() == [1]
    assert check_recall(Fixed("abc", ["c"]), oracle, query, 1).values.tolist() == [0]


def test_k_beyond_n_and_bad_oracles():
    oracle = index_of(np.eye(4), "abcd")
    query = Embeddings(np.eye(4)[:1], id_array("q"), SPACE)
    assert check_recall(oracle, oracle, query, 100).values.tolist() == [1]
    with pytest.raises(InputError, match="must be an exact index"):
        check_recall(oracle, HNSW(SPACE), query, 1)
    with pytest.raises(InputError, match="different ids"):
        check_recall(index_of(np.eye(4), "abce"), oracle, query, 1)
