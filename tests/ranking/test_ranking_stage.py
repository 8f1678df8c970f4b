import json
import subprocess
import sys

import numpy as np
import pytest

from isometry.errors import InputError
from isometry.indexes import Exact
from isometry.protocols import Stage as StageProtocol
from isometry.ranking import BM25, Diversify, KeywordSearch, Pipeline, Rerank, Retrieve, explain, fuse
from isometry.types import Embeddings, Hits, Queries, Space, id_array

SPACE = Space("letters", 26)
TEXTS = {"a": "red apple", "b": "green pear", "c": "red wine, red glass", "d": "blue sea", "e": "apple pie"}


class Letters:
    """Encodes a text as its letter counts."""

    space = SPACE

    def encode_query(self, inputs, *, prompt=None, batch_size=32):
        x = np.array([[t.lower().count(chr(97 + i)) for i in range(26)] for t in inputs], np.float32).reshape(-1, 26)
        return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-9)

    encode_document = encode_query


@pytest.fixture
def parts():
    encoder = Letters()
    emb = Embeddings(encoder.encode_document(list(TEXTS.values())), id_array(TEXTS), SPACE)
    index = Exact.of(emb)
    dense, words = Retrieve(encoder, index, k=4), BM25(TEXTS, k=4)
    rerank = Rerank(lambda q, texts: [len(t) for t in texts], depth=3, texts=TEXTS)
    return dense, words, rerank, Diversify(lam=0.5, k=2, vectors=index.vectors)


QUERIES = Queries.of({"q1": "red apple", "q2": "xyzzy", "q3": "green sea"})


def flat(hits):
    return [(q, row) for q, row in hits]


def test_every_stage_is_one(parts):
    for stage in (*parts, parts[0] >> parts[2], fuse(*parts[:2])):
        assert isinstance(stage, StageProtocol)
        assert stage.name
        assert len(stage.fingerprint) == 16


def test_grouping_makes_no_difference(parts):
    a, _, b, c = parts
    left, right, whole = (a >> b) >> c, a >> (b >> c), Pipeline([a, b, c])
    assert left.fingerprint == right.fingerprint == whole.fingerprint
    assert left.name == "retrieve >> rerank >> diversify"
    by_hand = c(QUERIES, b(QUERIES, a(QUERIES)))
    for pipeline in (left, right, whole):
        hits = pipeline(QUERIES)
        assert flat(hits) == flat(by_hand)
        assert list(hits.contributions) == list(by_hand.contributions)


def test_a_plain_function_is_a_stage_too(parts):
    def none(queries, hits=None):
        return Hits.build(queries.ids, [[]] * len(queries))

    pipeline = parts[0] >> none
    assert flat(pipeline(QUERIES)) == [("q1", []), ("q2", []), ("q3", [])]
    assert pipeline.fingerprint != parts[0].fingerprint
    with pytest.raises(InputError, match="none"):
        parts[0] >> 5
    with pytest.raises(InputError, match="at least one"):
        Pipeline([])


def test_explanation_says_what_each_stage_gave(parts):
    dense, words, rerank, diversify = parts
    pipeline = fuse(dense, words) >> rerank >> diversify
    hits = pipeline(QUERIES)
    assert explain(hits, 1) == pipeline.explain(hits, 1)
    of_dense, of_words = dense(QUERIES).row(0), words(QUERIES).row(0)
    fused = fuse(dense, words)(QUERIES).row(0)
    for (identity, score), told in zip(hits.row(0), explain(hits, 0), strict=True):
        given = {line["stage"]: line for line in told}
        assert list(given)[-1] == "diversify"
        assert given["diversify"]["score"] == pytest.approx(score)
        assert given["rerank"]["score"] == len(TEXTS[identity])
        for name, rows in (("retrieve", of_dense), ("bm25", of_words), ("rrf", fused)):
            position = [i for i, _ in rows].index(identity) if identity in dict(rows) else None
            assert (name in given) == (position is not None)
            if position is not None:
                assert given[name] == {"stage": name, "score": pytest.approx(rows[position][1]), "rank": position + 1}
    assert [line["rank"] for told in explain(hits, 0) for line in told if line["stage"] == "diversify"] == [1, 2]


def test_two_stages_of_one_name_are_told_apart(parts):
    _, words, rerank, _ = parts
    twice = (words >> rerank >> rerank)(QUERIES)
    assert [line["stage"] for line in explain(twice, 0)[0]] == ["bm25", "rerank", "rerank 2"]
    both = fuse(words, BM25(TEXTS, k=1))(QUERIES)
    assert [line["stage"] for line in explain(both, 0)[0]] == ["bm25", "bm25 2", "rrf"]
    after = (words >> fuse(rerank, rerank))(QUERIES)
    assert [line["stage"] for line in explain(after, 0)[0]] == ["bm25", "rerank", "rerank 2", "rrf"]


def test_no_queries_and_no_hits(parts):
    dense, words, rerank, diversify = parts
    for stage in (dense, words, fuse(dense, words), dense >> rerank >> diversify):
        assert len(stage(Queries.of([]))) == 0
    nothing = Hits.build(QUERIES.ids, [[]] * 3)
    for stage in (rerank, diversify):
        assert flat(stage(QUERIES, nothing)) == [("q1", []), ("q2", []), ("q3", [])]
        with pytest.raises(InputError, match="needs the hits"):
            stage(QUERIES)
        with pytest.raises(InputError, match="other queries"):
            stage(QUERIES, Hits.build(["x"], [[]]))
    for stage in (dense, words):
        with pytest.raises(InputError, match="stand first"):
            stage(QUERIES, nothing)


def test_retrieve(parts):
    encoder, index = parts[0].encoder, parts[0].index
    vectors = Embeddings(encoder.encode_query(list(QUERIES.texts)), QUERIES.ids, SPACE)
    given = Queries(QUERIES.ids, QUERIES.texts, vectors)
    expected = flat(index.search(vectors, 4))
    assert flat(parts[0](QUERIES)) == expected
    assert flat(Retrieve(None, index, k=4)(given)) == expected
    mask = np.array([True, False, True, False, False])
    assert set(Retrieve(encoder, index, where=mask)(QUERIES).ids) == {"a", "c"}
    with pytest.raises(InputError, match="no encoder"):
        Retrieve(None, index)(QUERIES)
    for bad in (0, -1, 1.5, True):
        with pytest.raises(InputError, match="k must be"):
            Retrieve(encoder, index, k=bad)


def test_keyword_search_asks_the_collection():
    class Collection:
        def bm25(self, queries, k, where):
            return Hits.build(queries.ids, [[(f"{where}{k}", 1.0)]] * len(queries))

    stage = KeywordSearch(Collection(), 3, "year > 2")
    assert stage(QUERIES).ids.tolist() == ["year > 23"] * 3
    assert stage.fingerprint != KeywordSearch(Collection(), 3, "year > 3").fingerprint
    with pytest.raises(InputError, match="stand first"):
        stage(QUERIES, stage(QUERIES))


def test_fingerprints_follow_the_configuration(parts):
    encoder, index = parts[0].encoder, parts[0].index
    mask = np.ones(5, bool)
    kinds = [
        lambda: Retrieve(encoder, index, k=3),
        lambda: Retrieve(encoder, index, k=4),
        lambda: Retrieve(encoder, index, k=3, where=mask),
        lambda: Retrieve(encoder, index, k=3, where=~mask),
        lambda: Retrieve(None, index, k=3),
        lambda: BM25(TEXTS),
        lambda: BM25(TEXTS, b=0.5),
        lambda: BM25(TEXTS, stop_words=["red"]),
        lambda: BM25({**TEXTS, "a": "red apples"}),
        lambda: BM25({"a": "1b", "b": "2"}),
        lambda: BM25({"a": "1", "b": "b2"}),
        lambda: fuse(parts[0], parts[1]),
        lambda: fuse(parts[1], parts[0]),
        lambda: fuse(parts[0], parts[1], k=10),
        lambda: fuse(parts[0], parts[1], weights=[1, 2]),
        lambda: fuse(parts[0], parts[1], how="weighted"),
        lambda: fuse(parts[0], parts[1], how="weighted", normalise="zscore"),
        lambda: Rerank(len, texts=TEXTS),
        lambda: Rerank(max, texts=TEXTS),
        lambda: Rerank(len, depth=3, texts=TEXTS),
        lambda: Diversify(vectors=index.vectors),
        lambda: Diversify(lam=0.4, vectors=index.vectors),
        lambda: Diversify(k=3, vectors=index.vectors),
        lambda: parts[0] >> parts[2],
        lambda: parts[1] >> parts[2],
    ]
    first, again = [k().fingerprint for k in kinds], [k().fingerprint for k in kinds]
    assert first == again
    assert len(set(first)) == len(first)


def test_a_fingerprint_is_the_same_in_another_process():
    code = "from isometry.ranking import BM25, fuse; b = BM25({'a': 'x', 'b': 'y'}, stop_words={'u', 'v', 'w'}); "
    code += "import json; print(json.dumps([b.fingerprint, fuse(b, b).fingerprint]))"
    b = BM25({"a": "x", "b": "y"}, stop_words={"u", "v", "w"})
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [b.fingerprint, fuse(b, b).fingerprint]
