import numpy as np
import pytest

from isometry.errors import InputError, IsometryError, UnknownName
from isometry.ranking import MaxSim, Rerank
from isometry.types import Document, Hits, Queries

TEXTS = {"a": "x", "b": "xxx", "c": "xx", "d": "xxxx"}
QUERIES = Queries.of({"q1": "one", "q2": "two"})
HITS = Hits.build(QUERIES.ids, [[("a", 4.0), ("b", 3.0), ("c", 2.0), ("d", 1.0)], [("d", 1.0)]])


def by_length(query, texts):
    return np.array([len(t) for t in texts])


class Pairs:
    """As a cross-encoder: one call for all pairs."""

    calls = 0

    def predict(self, pairs):
        self.calls += 1
        return np.array([[len(text) + 10 * (query == "two")] for query, text in pairs], np.float32)


def test_scores_and_sorts_the_first():
    hits = Rerank(by_length, depth=3, texts=TEXTS)(QUERIES, HITS)
    assert [hits.row(i) for i in range(2)] == [[("b", 3.0), ("c", 2.0), ("a", 1.0)], [("d", 4.0)]]


def test_a_cross_encoder_is_asked_once():
    scorer = Pairs()
    hits = Rerank(scorer, texts=TEXTS)(QUERIES, HITS)
    assert hits.row(0)[0] == ("d", 4.0)
    assert hits.row(1) == [("d", 14.0)]
    assert scorer.calls == 1


def test_texts_come_from_a_function_of_ids_and_may_be_documents():
    asked = []

    def get(ids):
        asked.append(list(ids))
        return [Document(i, TEXTS[i], title="t") for i in ids]

    seen = []
    Rerank(lambda q, texts: seen.append((q, texts)) or by_length(q, texts), depth=2, texts=get)(QUERIES, HITS)
    assert asked == [["a", "b", "d"]]
    assert seen == [("one", ["t x", "t xxx"]), ("two", ["t xxxx"])]


def test_ties_break_by_id_and_tensors_are_fine():
    import torch

    hits = Rerank(lambda q, texts: torch.zeros(len(texts), requires_grad=True), texts=TEXTS)(QUERIES, HITS)
    assert hits.ids.tolist() == ["a", "b", "c", "d", "d"]


@pytest.mark.parametrize(
    "bad", [lambda q, t: [1.0], lambda q, t: np.full(len(t), np.nan), lambda q, t: np.ones((len(t), 2))]
)
def test_a_scorer_that_answers_nonsense(bad):
    with pytest.raises(InputError, match="one finite number per text"):
        Rerank(bad, texts=TEXTS)(QUERIES, HITS)


def test_bad_lookups_and_arguments():
    with pytest.raises(UnknownName, match="'d'"):
        Rerank(by_length, texts={k: TEXTS[k] for k in "abc"})(QUERIES, HITS)
    with pytest.raises(InputError, match="one text per id"):
        Rerank(by_length, texts=lambda ids: ["x"])(QUERIES, HITS)
    with pytest.raises(InputError, match="NoneType"):
        Rerank(by_length, texts=lambda ids: [None] * len(ids))(QUERIES, HITS)
    with pytest.raises(InputError, match="predict"):
        Rerank("model", texts=TEXTS)
    with pytest.raises(InputError, match="depth"):
        Rerank(by_length, depth=0, texts=TEXTS)


class Tokens:
    """One unit vector per letter of a text."""

    def encode_query(self, texts):
        return [np.eye(26, dtype=np.float32)[[ord(c) - 97 for c in t]] for t in texts]

    encode_document = encode_query


def test_late_interaction():
    scorer = MaxSim(Tokens())
    np.testing.assert_array_equal(scorer("abc", ["cab", "xa", "zz", "aaaa", ""]), [3, 1, 0, 1, 0])
    assert len(scorer("abc", [])) == 0
    hits = Rerank(scorer, texts={"p": "cab", "q": "xa"})(Queries.of(["abc"]), Hits.build(["0"], [[("q", 2), ("p", 1)]]))
    assert hits.row(0) == [("p", 3.0), ("q", 1.0)]


def test_maxsim_equals_a_naive_loop():
    rng = np.random.default_rng(0)
    query, documents = rng.standard_normal((5, 8)), [rng.standard_normal((n, 8)) for n in (1, 4, 9)]

    class Fixed:
        def encode_query(self, texts):
            return [query]

        def encode_document(self, texts):
            return documents

    naive = [sum(max(float(q @ t) for t in d) for q in query) for d in documents]
    assert MaxSim(Fixed())("q", ["", "", ""]).tolist() == pytest.approx(naive, rel=1e-5, abs=1e-5)
    documents[1] = np.full((2, 8), np.nan)
    with pytest.raises(IsometryError, match="NaN"):
        MaxSim(Fixed())("q", ["", "", ""])


@pytest.mark.filterwarnings("ignore")
def test_a_real_cross_encoder(tmp_path):
    """An untrained model of a few thousand weights, through sentence-transformers' own class."""
    from sentence_transformers import CrossEncoder
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

    (tmp_path / "vocab.txt").write_text(
        "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "one", "two", "x", "##x"])
    )
    config = BertConfig(
        vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, num_labels=1
    )
    BertForSequenceClassification(config).save_pretrained(tmp_path)
    BertTokenizer(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    model = CrossEncoder(str(tmp_path), device="cpu")
    hits = Rerank(model, texts=TEXTS)(QUERIES, HITS)
    expected = model.predict([("one", TEXTS[i]) for i in "abcd"])
    assert dict(hits.row(0)) == pytest.approx(dict(zip("abcd", expected.tolist(), strict=True)), rel=1e-4)
