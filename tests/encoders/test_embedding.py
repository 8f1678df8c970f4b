"""Embedding counts what it cuts, encodes a text once, and finds again what it has seen."""

import multiprocessing
import sqlite3

import numpy as np
import pytest

from isometry.encoders import EmbeddingCache, embed, load
from isometry.encoders.embedding import _windows
from isometry.errors import EmptyInput, StoreError, TextTooLong, Truncated, UnknownName

LONG = "many different words make a long text " * 60


def test_what_does_not_fit_is_counted(minilm):
    with pytest.warns(Truncated, match=r"1 of 2 texts.*165|1 of 2 texts"):
        emb = embed(minilm, ["short", LONG], role="document")
    tokens = int(minilm.count_tokens([LONG])[0])
    assert emb.cut_tokens.tolist() == [0, tokens - 254]
    assert emb.ids.tolist() == ["0", "1"]
    with pytest.raises(TextTooLong, match="Row 1 is"):
        embed(minilm, ["short", LONG], role="document", on_truncate="error")
    quiet = embed(minilm, ["short", LONG], role="document", on_truncate="ignore")
    np.testing.assert_allclose(quiet.vectors, emb.vectors)
    with pytest.raises(UnknownName, match="on_truncate"):
        embed(minilm, ["a"], role="document", on_truncate="maybe")
    with pytest.raises(EmptyInput, match="Row 0"):
        embed(minilm, [""], role="document")


def test_chunks_are_averaged_by_their_tokens(minilm):
    emb = embed(minilm, ["short", LONG], role="document", on_truncate="chunk")
    spans = minilm.token_spans(LONG)
    groups = [spans[i : i + 254] for i in range(0, len(spans), 254)]
    parts = minilm.encode_document([LONG[g[0][0] : g[-1][1]] for g in groups])
    mean = np.average(parts, axis=0, weights=[len(g) for g in groups])
    np.testing.assert_allclose(emb.vectors[1], mean / np.linalg.norm(mean), atol=1e-5)
    np.testing.assert_allclose(emb.vectors[0], minilm.encode_document(["short"])[0], atol=1e-6)
    assert emb.cut_tokens.tolist() == [0, 0]


def test_a_text_exactly_as_long_as_the_window_is_whole(minilm):
    text = "word " * 254
    assert embed(minilm, [text], role="document", on_truncate="error").cut_tokens.tolist() == [0]
    with pytest.raises(TextTooLong, match="1 tokens"):
        embed(minilm, [text + "word"], role="document", on_truncate="error")


class Counting:
    """Counts the texts that reach the encoder."""

    def __init__(self, encoder):
        self.encoder, self.seen = encoder, 0

    def __getattr__(self, name):
        return getattr(self.encoder, name)

    def encode(self, texts, **options):
        self.seen += len(texts)
        return self.encoder.encode(texts, **options)


def test_equal_texts_are_encoded_once_and_known_ones_never(minilm, tmp_path):
    counting = Counting(minilm)
    texts = ["a", "b", "a", "c", "b"]
    with EmbeddingCache(tmp_path / "c.sqlite") as cache:
        first = embed(counting, texts, role="document", cache=cache)
        assert counting.seen == 3
        again = embed(counting, [*texts, "d"], role="document", cache=cache)
        assert counting.seen == 4
        embed(counting, ["a"], role="query", cache=cache)
        assert counting.seen == 5, "a query is not a document"
        assert len(cache) == 5
    np.testing.assert_array_equal(first.vectors, again.vectors[:5])
    np.testing.assert_allclose(first.vectors[0], minilm.encode_document(["a"])[0], atol=1e-6)


def test_the_cache_tells_spaces_apart(minilm, tmp_path):
    other = load(engine="torch", prompts={"document": "passage: "})
    with EmbeddingCache(tmp_path / "c.sqlite") as cache:
        a = embed(minilm, ["text"], role="document", cache=cache).vectors
        b = embed(other, ["text"], role="document", cache=cache).vectors
    assert np.abs(a - b).max() > 1e-3


def test_the_cache_tells_windows_and_precisions_apart(minilm, tmp_path):
    narrow, fast = load(engine="torch", max_tokens=16), load(engine="fast")
    with EmbeddingCache(tmp_path / "c.sqlite") as cache:
        for encoder in (minilm, narrow, fast):
            kept = embed(encoder, [LONG], role="document", on_truncate="ignore", cache=cache).vectors
            np.testing.assert_allclose(kept, encoder.encode_document([LONG]), atol=1e-6)
        assert len(cache) == (2 if fast.precision == "float32" else 3)


def test_no_stretch_of_a_long_text_is_cut_again(minilm):
    """Half a word may have more word pieces than it had inside the word."""
    narrow = load(engine="torch", max_tokens=9)
    text = " ".join(["antidisestablishmentarianism", "floccinaucinihilipilification"] * 9)
    pieces = _windows(narrow, text, "document")
    assert [int(narrow.count_tokens([piece])[0]) for piece, _ in pieces] == [n for _, n in pieces]
    assert max(n for _, n in pieces) <= narrow.room("document")
    assert "".join("".join(piece for piece, _ in pieces).split()) == "".join(text.split())


def test_broken_rows_and_broken_files_are_computed_again(minilm, tmp_path):
    path = tmp_path / "c.sqlite"
    with EmbeddingCache(path) as cache:
        good = embed(minilm, ["text"], role="document", cache=cache).vectors
    with sqlite3.connect(path) as db:
        db.execute("UPDATE vectors SET vector = zeroblob(1536)")
    db.close()
    with EmbeddingCache(path) as cache:
        np.testing.assert_allclose(embed(minilm, ["text"], role="document", cache=cache).vectors, good, atol=1e-6)
    path.write_bytes(b"no database" * 500)
    with EmbeddingCache(path) as cache:
        np.testing.assert_allclose(embed(minilm, ["text"], role="document", cache=cache).vectors, good, atol=1e-6)
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        EmbeddingCache(tmp_path / "file" / "c.sqlite")


def put(path, start):
    from isometry.types import Space

    space = Space("m", 4)
    with EmbeddingCache(path) as cache:
        for i in range(start, start + 50):
            cache.put_many(space, "document", [f"t{i}"], np.full((1, 4), i, np.float32))


def test_several_processes_may_write(tmp_path):
    path = tmp_path / "c.sqlite"
    EmbeddingCache(path).close()
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=put, args=(path, 50 * i)) for i in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    with EmbeddingCache(path) as cache:
        assert len(cache) == 150


def test_progress_is_told_of_every_text(minilm):
    seen = []
    embed(
        minilm, [f"t{i}" for i in range(100)], role="document", progress=lambda done, total: seen.append((done, total))
    )
    assert seen[0] == (0, 100)
    assert seen[-1] == (100, 100)
    assert seen == sorted(seen)
