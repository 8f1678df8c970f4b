"""Late interaction on a collection: ranks as MaxSim says, in step with the documents whatever happens to either."""

import json
import shutil

import numpy as np
import pytest

from isometry.encoders import LateInteraction, load
from isometry.errors import DataWarning, EmptyInput, InputError, SpaceMismatch
from isometry.indexes import multi_vector
from isometry.modules.token_projection import TokenProjection
from isometry.store import Collection
from isometry.types import Document, Embeddings, Queries
from isometry.workbench import Searcher, evaluate_collection, evaluate_set, index, open_collection
from isometry.workbench import late_interaction as module
from isometry.workbench.late_interaction import TokenVectors, add_tokens, keep_tokens, token_encoder

TOPICS = ("cats purr and sleep", "taxes are due in July", "diesel engines need no spark", "owls hunt at night")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("ISOMETRY_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(scope="session")
def late(minilm):
    return token_encoder(minilm, 16)


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    for i in range(12):
        (folder / f"{i:02}.txt").write_text(f"Note {i}: {TOPICS[i % 4]}, said person {i}.\n")
    return folder


@pytest.fixture
def indexed(files, minilm, late):
    index(files, "n", minilm, late=late)
    return files


@pytest.fixture
def embedded(monkeypatch):
    """Ids of the documents that late interaction embeds from now on."""
    seen: list[str] = []
    original = LateInteraction.embed

    def spy(self, texts, ids=None, *, role="document", **options):
        if role == "document":
            seen.extend(ids)
        return original(self, texts, ids, role=role, **options)

    monkeypatch.setattr(LateInteraction, "embed", spy)
    return seen


def maxsim(late, documents, query):
    """MaxSim by its definition, of float32 tokens."""
    (asked,) = late.encode_query([query])
    tokens = late.encode_document([d.content for d in documents])
    return {d.id: float((asked @ t.T).max(axis=1).sum()) for d, t in zip(documents, tokens, strict=True)}


def found(searcher, query="sleepy cats", **options):
    return dict(searcher.hits(Queries.of([query]), "late", **{"k": 100, **options}).row(0))


def assert_in_step(name, minilm, late, query="sleepy cats"):
    """The collection answers exactly as MaxSim over its documents says, without a warning."""
    with open_collection(name) as opened:
        truth = maxsim(late, list(opened.iterate()), query)
        rows = found(Searcher(opened, minilm, late), query)
    assert rows.keys() == truth.keys()
    assert rows == pytest.approx(truth, abs=0.03)  # 8 bits a number


# -- ranking ----------------------------------------------------------------------------------------------------------


def test_search_is_maxsim_and_is_the_default_where_there_are_tokens(indexed, minilm, late):
    assert_in_step("n", minilm, late)
    with open_collection("n") as opened:
        searcher = Searcher(opened, minilm)
        assert searcher.mode == "late"
        answers = searcher.search("sleepy cats", k=3)
        truth = maxsim(late, list(opened.iterate()), "sleepy cats")
        assert {a.document.id for a in answers} <= set(sorted(truth, key=truth.get)[-4:])
        assert [e["stage"] for e in answers[0].explanation] == ["maxsim"]
        assert [a.explanation[0]["rank"] for a in answers] == [1, 2, 3]
        assert searcher.search("cats", mode="vector", k=1)[0].explanation[0]["stage"] == "retrieve"


def test_a_collection_without_tokens_says_how_to_get_them(files, minilm):
    index(files, "n", minilm)
    with open_collection("n") as opened:
        assert Searcher(opened, minilm).mode == "hybrid"
        with pytest.raises(InputError, match="--late-interaction"):
            Searcher(opened, minilm).search("cats", mode="late")


@pytest.mark.parametrize("where", [None, "file < '04.txt'", "file = '03.txt'", "file = 'none'"])
@pytest.mark.parametrize("k", [1, 3, 50])
@pytest.mark.parametrize("two_stages", [False, True])
def test_exactly_k_or_all_that_match(indexed, minilm, late, monkeypatch, where, k, two_stages):
    if two_stages:
        monkeypatch.setattr(multi_vector, "SMALL", 0)
        monkeypatch.setattr(multi_vector, "CANDIDATES", 1)
        monkeypatch.setattr(multi_vector, "PER_ANSWER", 1)
    with open_collection("n") as opened:
        matching = opened.ids(where)
        rows = found(Searcher(opened, minilm, late), k=k, where=where)
        truth = maxsim(late, opened.get(matching), "sleepy cats") if matching else {}
    assert len(rows) == min(k, len(matching))
    assert rows == pytest.approx({i: truth[i] for i in rows}, abs=0.03)


def test_later_stages_follow(indexed, minilm, late):
    with open_collection("n") as opened:
        searcher = Searcher(opened, minilm, late)
        ranked = searcher.search(
            "notes", k=3, rerank=lambda query, texts: [float(t.split(":")[0].split()[-1]) for t in texts]
        )
        assert [a.document.payload["file"] for a in ranked] == ["11.txt", "10.txt", "09.txt"]
        assert {e["stage"] for e in ranked[0].explanation} >= {"maxsim"}
        spread = searcher.search("cats", k=4, diverse=0.1)
        assert len({a.document.text.split(":")[1].split(",")[0] for a in spread}) >= 3


def test_documents_without_a_token_are_there_but_not_found(minilm, late, tmp_path):
    items = [Document("full", "cats sleep"), Document("empty", ""), Document("blank", " \n")]
    vectors = Embeddings(minilm.encode_document([d.content for d in items]), [d.id for d in items], minilm.space)
    with Collection.create(tmp_path / "c", minilm.space) as made:
        made.upsert(items, vectors)
        add_tokens(made, late)
        report = keep_tokens(made)
        assert (report.embedded, report.documents) == (3, 1)
        assert keep_tokens(made).embedded == 0
        assert list(found(Searcher(made, minilm, late))) == ["full"]
        with pytest.raises(EmptyInput):
            Searcher(made, minilm, late).hits(Queries.of(["\u200b"]), "late")
        made.delete(["full"])
        keep_tokens(made)
        assert found(Searcher(made, minilm, late)) == {}


# -- in step ----------------------------------------------------------------------------------------------------------


def test_only_what_is_new_or_changed_is_embedded(indexed, minilm, late, embedded):
    assert index(indexed, "n", minilm).tokens.embedded == 0
    (indexed / "00.txt").unlink()
    (indexed / "01.txt").write_text("Something else: bread is baked.\n")
    (indexed / "new.txt").write_text("Something new: wine is pressed.\n")
    report = index(indexed, "n", minilm)
    assert (report.added, report.removed) == (2, 1)
    assert (report.tokens.embedded, report.tokens.documents) == (2, 12)
    assert sorted(embedded) == ["01.txt#0", "new.txt#0"]
    assert_in_step("n", minilm, late)


def test_tokens_are_added_to_a_collection_that_had_none(files, minilm, late, embedded):
    assert index(files, "n", minilm).tokens is None
    report = index(files, "n", minilm, late=late)
    assert (report.added, report.tokens.embedded, report.tokens.dim) == (0, 12, 16)
    assert index(files, "n", minilm, late=True).tokens.dim == 16  # as it was, not the default
    assert len(embedded) == 12


def test_another_model_replaces_the_tokens(indexed, minilm, home, embedded):
    other = token_encoder(minilm, 24)
    assert index(indexed, "n", minilm, late=other).tokens.dim == 24
    assert len(embedded) == 12
    assert_in_step("n", minilm, other)
    kept = sorted(p.name.split("-")[0] for p in (home / "collections" / "n" / "late").iterdir())
    assert kept == ["index", "model", "state.json"]


@pytest.mark.parametrize("at", [0, 4, 8])
def test_an_interrupted_run_goes_on_where_it_stopped(files, minilm, late, embedded, monkeypatch, at):
    monkeypatch.setattr(module, "BATCH", 4)

    def interrupt(what, done, total):
        if what == module.STEP and done > at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index(files, "n", minilm, late=late, progress=interrupt)
    embedded.clear()
    report = index(files, "n", minilm)
    assert report.tokens.embedded == len(embedded) == 12 - at
    assert_in_step("n", minilm, late)


def test_a_kill_leaves_the_last_save(files, minilm, late, embedded, monkeypatch):
    """No handler runs: the index is behind by what was not saved, and the next run makes that."""
    monkeypatch.setattr(module, "BATCH", 2)
    saves = []
    original = TokenVectors.save

    def dying(self, *, changed=True):
        if len(saves) >= 2:
            raise OSError("killed")
        saves.append(len(self.digests))
        original(self, changed=changed)

    monkeypatch.setattr(TokenVectors, "save", dying)
    with pytest.raises(OSError, match="killed"):
        index(files, "n", minilm, late=late)
    assert saves == [0, 8]
    monkeypatch.setattr(TokenVectors, "save", original)
    embedded.clear()
    index(files, "n", minilm)
    assert len(embedded) == 4
    assert_in_step("n", minilm, late)


def test_any_series_of_changes_stays_in_step(minilm, late, tmp_path):
    rng = np.random.default_rng(0)
    with Collection.create(tmp_path / "c", minilm.space) as made:
        add_tokens(made, late)
        for step in range(12):
            ids = [f"d{i}" for i in rng.choice(8, size=3, replace=False)]
            if rng.random() < 0.3:
                made.delete([i for i in ids if i in set(made.ids())])
            else:
                items = [Document(i, f"{rng.choice(TOPICS)} {rng.integers(3)}") for i in ids]
                made.upsert(items, Embeddings(minilm.encode_document([d.text for d in items]), ids, minilm.space))
            if step % 3 == 2:
                keep_tokens(made, late)
                tokens = TokenVectors(made, late)
                assert tokens.lag(made) == ([], {})
                documents = list(made.iterate())
                assert found(Searcher(made, minilm, late)) == pytest.approx(
                    maxsim(late, documents, "sleepy cats"), abs=0.03
                )


# -- lost, stale, broken ----------------------------------------------------------------------------------------------


def _flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def _seal(state):
    def change(folder):
        kept = module._unsealed(folder / "state.json")
        (folder / "state.json").write_bytes(module._sealed({**kept, **state}))

    return change


DAMAGE = {
    "gone": shutil.rmtree,
    "no state": lambda folder: (folder / "state.json").unlink(),
    "state cut": lambda folder: (folder / "state.json").write_text('{"state": {"digests'),
    "state flipped": lambda folder: _flip(folder / "state.json"),
    "state of the next release": _seal({"format": 99}),
    "no list": lambda folder: (folder / "state.json").write_text("[]"),
    "index gone": lambda folder: shutil.rmtree(next(folder.glob("index-*"))),
    "tokens flipped": lambda folder: _flip(next(folder.glob("index-*/tokens*"))),
    "first stage flipped": lambda folder: _flip(next(folder.glob("index-*/first-*/vectors*"))),
    "manifest flipped": lambda folder: _flip(next(folder.glob("index-*/manifest.json"))),
    "other items": _seal({"items": 3}),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("by", ["search", "index"])
def test_what_is_lost_or_broken_is_made_again_with_a_message(indexed, minilm, late, home, damage, by):
    DAMAGE[damage](home / "collections" / "n" / "late")
    with open_collection("n") as opened:
        again = {
            "index": lambda: index(indexed, "n", minilm).tokens.documents,
            "search": lambda: len(found(Searcher(opened, minilm))),
        }
        with pytest.warns(DataWarning, match="12 documents were embedded"):
            assert again[by]() == 12
    assert_in_step("n", minilm, late)


def test_an_old_copy_is_brought_up_to_date(indexed, minilm, late, home, embedded, tmp_path):
    folder = home / "collections" / "n" / "late"
    shutil.copytree(folder, tmp_path / "old")
    (indexed / "00.txt").unlink()
    (indexed / "01.txt").write_text("Something else: bread is baked.\n")
    index(indexed, "n", minilm)
    shutil.rmtree(folder)
    shutil.copytree(tmp_path / "old", folder)
    embedded.clear()
    with open_collection("n") as opened, pytest.warns(DataWarning, match="2 documents of 'n' have token vectors that"):
        assert "00.txt#0" not in found(Searcher(opened, minilm, late))
    assert embedded == ["01.txt#0"]
    assert_in_step("n", minilm, late)


def test_a_reader_whose_index_is_taken_away_while_it_opens_reads_the_new_one(indexed, minilm, late, monkeypatch):
    original, asked = multi_vector.MultiVectorIndex.load, []

    def load_late(path, **options):
        asked.append(path)
        if len(asked) == 1:
            (indexed / "new.txt").write_text("Cats, cats, cats.\n")
            index(indexed, "n", minilm, late=late)
            assert not path.exists()
        return original(path, **options)

    monkeypatch.setattr(multi_vector.MultiVectorIndex, "load", load_late)
    with open_collection("n") as opened:
        tokens = TokenVectors(opened)
        assert (tokens.problem, len(tokens.index), tokens.lag(opened)) == ("", 13, ([], {}))
    assert len(set(asked)) == 2


def test_while_another_writes_only_what_is_current_is_found(indexed, minilm, late):
    with open_collection("n", write=True) as writer, open_collection("n") as opened:
        changed = Document("01.txt#0", "Something else: bread is baked.")
        writer.upsert([changed], Embeddings(minilm.encode_document([changed.text]), [changed.id], minilm.space))
        writer.delete(["00.txt#0"])
        with pytest.warns(DataWarning, match="does not find 1 of 11 documents yet"):
            rows = found(Searcher(opened, minilm, late))
        assert len(rows) == 10
        assert not rows.keys() & {"00.txt#0", "01.txt#0"}
        keep_tokens(writer, late)
    assert_in_step("n", minilm, late)


def test_a_searcher_that_is_kept_sees_changes(indexed, minilm, late, embedded):
    with open_collection("n") as opened:
        searcher = Searcher(opened, minilm, late)
        assert len(found(searcher)) == 12
        assert searcher.tokens is searcher.tokens
        (indexed / "new.txt").write_text("Cats, cats, cats.\n")
        index(indexed, "n", minilm)
        assert next(iter(found(searcher, "cats"))) == "new.txt#0"
        assert embedded == ["new.txt#0"]


def test_an_exported_collection_gets_its_tokens_again(indexed, minilm, late, tmp_path):
    with open_collection("n") as opened:
        opened.export(tmp_path / "n.parquet")
    Collection.import_parquet(tmp_path / "copy", tmp_path / "n.parquet").close()
    with open_collection(str(tmp_path / "copy")) as copy, pytest.warns(DataWarning, match="are missing; 12 documents"):
        assert len(found(Searcher(copy, minilm))) == 12
    assert_in_step(str(tmp_path / "copy"), minilm, late)


# -- the model --------------------------------------------------------------------------------------------------------


def test_a_model_of_another_configuration_is_refused(indexed, minilm, late, home):
    others = [token_encoder(minilm), token_encoder(minilm, 15), late.replace(drop_punctuation=True)]
    others.append(token_encoder(load(engine="torch", prompts={"query": "q: "}), 16))
    before = (home / "collections" / "n" / "late" / "state.json").read_bytes()
    with open_collection("n") as opened:
        for other in others:
            with pytest.raises(SpaceMismatch):
                Searcher(opened, minilm, other).search("cats")
    (indexed / "00.txt").unlink()
    (indexed / "01.txt").write_text("Something else.")
    with open_collection("n", write=True) as opened:
        opened.delete(["00.txt#0"])
        opened.upsert([Document("x", "new")], Embeddings(minilm.encode_document(["new"]), ["x"], minilm.space))
        with pytest.raises(SpaceMismatch):
            keep_tokens(opened, others[1])
    assert (home / "collections" / "n" / "late" / "state.json").read_bytes() == before


@pytest.mark.parametrize("damage", [shutil.rmtree, lambda folder: _flip(folder / "late_interaction.safetensors")])
def test_a_lost_model_is_made_again_unless_it_was_trained(indexed, minilm, late, home, damage):
    folder = home / "collections" / "n" / "late"
    damage(next(folder.glob("model-*")))
    with open_collection("n") as opened:
        assert len(found(Searcher(opened, minilm))) == 12
    index(indexed, "n", minilm, late=late.replace(head=TokenProjection(384, 16, seed=7)))  # stands for a trained one
    damage(next(folder.glob("model-*")))
    with open_collection("n") as opened, pytest.raises(InputError, match="model of this collection is lost"):
        found(Searcher(opened, minilm))


def test_widths_that_the_model_does_not_have(minilm):
    assert token_encoder(minilm).dim == 384
    assert token_encoder(minilm, 384).head is None
    assert token_encoder(minilm, 32).space == token_encoder(minilm, 32).space
    for bad in (0, -1, 385):
        with pytest.raises(InputError, match="1 to 384"):
            token_encoder(minilm, bad)


# -- how good ---------------------------------------------------------------------------------------------------------


def test_judged_from_memory_and_from_a_collection_alike(minilm, tmp_path, late):
    root = tmp_path / "beir"
    (root / "qrels").mkdir(parents=True)
    corpus = [{"_id": f"d{i}", "title": "", "text": f"{t}, twice"} for i, t in enumerate(TOPICS)]
    (root / "corpus.jsonl").write_text("\n".join(map(json.dumps, corpus)))
    (root / "queries.jsonl").write_text(
        "\n".join(json.dumps({"_id": f"q{i}", "text": t}) for i, t in enumerate(TOPICS))
    )
    (root / "qrels" / "test.tsv").write_text(
        "query-id\tcorpus-id\tscore\n" + "".join(f"q{i}\td{i}\t1\n" for i in range(4))
    )
    index(root, "b", minilm, late=True)
    with open_collection("b") as opened:
        kept = evaluate_collection(opened, minilm, mode="late", against="vector")
        assert kept.against == "vector"
    memory = evaluate_set(root, minilm, mode="late")
    assert kept.scores.mean("mrr") == memory.scores.mean("mrr") == 1.0


def test_synthetic_questions_use_the_model_of_the_collection(indexed, minilm, late):
    (indexed / "two.txt").write_text("Bread is baked in the morning hours. Wine is pressed in the autumn months.")
    index(indexed, "n", minilm)
    with open_collection("n") as opened:
        assert evaluate_collection(opened, minilm, mode="late", synthetic=5).synthetic


def test_it_ranks_what_single_vectors_cannot(minilm, data_root):
    """LIMIT: any two of 46 documents are asked for together (arXiv:2508.21038)."""
    from isometry.data import load_set
    from isometry.tasks import evaluate_run

    source = data_root / "ir" / "limit-small"
    if not source.is_dir():
        pytest.skip("ir/limit-small not found")
    index(source, "limit", minilm, late=True)
    judged = load_set(source, kind="retrieval")
    chosen = dict(list(judged.qrels.items())[::5])
    asked = Queries.of({q: judged.queries[q] for q in chosen})
    with open_collection("limit") as opened:
        searcher = Searcher(opened, minilm)
        scores = {
            mode: evaluate_run(chosen, searcher.hits(asked, mode, k=2), metrics=("recall@2",)).mean("recall@2")
            for mode in ("late", "vector")
        }
    assert scores["late"] > 0.9
    assert scores["vector"] < 0.3
