"""The main job from Python: resumption, hybrid as the closed form says, settings, names."""

import numpy as np
import pytest

from isometry.errors import DataFormatError, EmptyInput, InputError, SpaceMismatch, UnknownName
from isometry.types import Hits, Queries
from isometry.workbench import Searcher, evaluate_collection, index, open_collection
from isometry.workbench import indexing as indexing_module
from isometry.workbench.places import collection_names, collection_path, set_setting, settings, settings_file
from isometry.workbench.searching import RRF_K, check_query, first


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("ISOMETRY_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    topics = ("cats purr and sleep", "taxes are due in July", "diesel engines need no spark", "owls hunt at night")
    for i in range(24):
        (folder / f"{i:02}.txt").write_text(f"Note {i}: {topics[i % 4]}, said person {i}.\n")
    return folder


def test_hybrid_is_the_mean_of_both_scores_scaled(files, minilm):
    index(files, "n", minilm)
    with open_collection("n") as opened:
        searcher = Searcher(opened, minilm)
        question = Queries.of(["sleepy cats"])
        expected: dict[str, float] = {}
        for mode in ("vector", "keyword"):
            row = searcher.hits(question, mode, k=24).row(0)
            low, high = row[-1][1], row[0][1]
            for identity, score in row:
                expected[identity] = expected.get(identity, 0.0) + 0.5 * (
                    (score - low) / (high - low) if high > low else 1
                )
        found = dict(searcher.hits(question, k=24).row(0))
        assert found == pytest.approx(expected, abs=1e-5)
        assert max(found.values()) <= 1
        with pytest.raises(UnknownName, match="fusion"):
            searcher.search("cats", fusion="magic")


def test_rrf_is_the_closed_form(files, minilm):
    index(files, "n", minilm)
    with open_collection("n") as opened:
        searcher = Searcher(opened, minilm)
        question = Queries.of(["sleepy cats"])
        vector, keyword = (searcher.hits(question, mode, k=24) for mode in ("vector", "keyword"))
        hybrid = searcher.hits(question, k=24, fusion="rrf")
        expected: dict[str, float] = {}
        for hits in (vector, keyword):
            for rank, (identity, _) in enumerate(hits.row(0), 1):
                expected[identity] = expected.get(identity, 0.0) + 1 / (RRF_K + rank)
        assert dict(hybrid.row(0)) == pytest.approx({i: expected[i] for i in dict(hybrid.row(0))})
        assert [i for i, _ in hybrid.row(0)] == sorted(expected, key=lambda i: (-np.float32(expected[i]), i))[:24]
        same = minilm.encode_query(["sleepy cats"]) @ opened.embeddings().vectors.T
        assert vector.scores[0] == pytest.approx(float(same.max()), abs=1e-5)


def test_an_interrupted_run_goes_on_where_it_stopped(files, minilm, monkeypatch):
    monkeypatch.setattr(indexing_module, "BATCH", 8)
    calls = []

    def interrupt(what, done, total):
        calls.append((what, done, total))
        if what == "embedding" and done == 16:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index(files, "n", minilm, progress=interrupt)
    with open_collection("n") as opened:
        assert opened.count() == 16
        assert opened.verify(repair=False).ok
    report = index(files, "n", minilm)
    assert (report.added, report.unchanged, report.documents) == (8, 16, 24)
    assert ("embedding", 8, 24) in calls


def test_what_an_interrupted_run_left_is_known_to_the_next(files, minilm, monkeypatch):
    """Sources and model were noted at the end only: a file deleted after an interruption stayed for ever."""
    monkeypatch.setattr(indexing_module, "BATCH", 8)

    def interrupt(what, done, total):
        if what == "embedding" and done == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index(files, "n", minilm, progress=interrupt)
    with open_collection("n") as opened:
        assert opened.meta["model"] == "minilm"
        assert Searcher(opened).search("cats", k=1)
    (files / "00.txt").unlink()
    report = index(files, "n", minilm)
    assert (report.removed, report.documents) == (1, 23)


def test_a_document_another_source_also_holds_is_not_removed(files, minilm, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "00.txt").write_text((files / "00.txt").read_text())
    index(files, "n", minilm)
    index(other, "n", minilm)
    (files / "00.txt").unlink()
    assert index(files, "n", minilm).documents == 24


def test_two_sources_share_a_collection_and_keep_apart(files, minilm, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "x.txt").write_text("An extra note about bread.")
    index(files, "n", minilm)
    index(other, "n", minilm)
    (files / "00.txt").unlink()
    report = index(files, "n", minilm)
    assert (report.removed, report.documents) == (1, 24)


def test_an_encoder_of_another_space_is_refused(files, minilm):
    from isometry.encoders import load

    index(files, "n", minilm)
    other = load(engine="torch", prompts={"query": "q: "})
    with pytest.raises(SpaceMismatch):
        index(files, "n", other)
    with open_collection("n") as opened, pytest.raises(SpaceMismatch):
        Searcher(opened, other).search("cats", mode="vector")


def test_rerank_by_a_function_and_diversity(files, minilm):
    index(files, "n", minilm)
    with open_collection("n") as opened:
        searcher = Searcher(opened, minilm)
        by_number = searcher.search(
            "notes", k=3, rerank=lambda query, texts: [float(t.split(":")[0].split()[-1]) for t in texts]
        )
        assert [a.document.payload["file"] for a in by_number] == ["23.txt", "22.txt", "21.txt"]
        spread = searcher.search("cats", k=4, diverse=0.2, mode="vector")
        assert len({a.document.text.split(":")[1].split(",")[0] for a in spread}) >= 3
        (explained,) = searcher.search("cats", k=1)
        assert {"stage", "score", "rank"} <= set(explained.explanation[0])


def test_synthetic_evaluation_is_marked(files, minilm):
    (files / "two.txt").write_text("Bread is baked in the morning hours. Wine is pressed in the autumn months.")
    index(files, "n", minilm)
    with open_collection("n") as opened:
        with pytest.raises(InputError, match="no judged queries"):
            evaluate_collection(opened, minilm)
        result = evaluate_collection(opened, minilm, synthetic=5)
    assert result.synthetic
    assert result.to_dict()["synthetic"] is True


def test_first_keeps_the_best_of_each_query():
    hits = Hits.build(["a", "b"], [[("x", 3.0), ("y", 2.0)], [("z", 1.0)]])
    cut = first(hits, 1)
    assert [cut.row(0), cut.row(1)] == [[("x", 3.0)], [("z", 1.0)]]


def test_queries_are_checked():
    assert check_query("  words ") == "words"
    with pytest.raises(EmptyInput):
        check_query("\n")
    with pytest.raises(InputError, match="100,001 characters"):
        check_query("x" * 100_001)


def test_settings_round_trip_and_stay_valid(home):
    assert settings().k == 10
    assert set_setting("k", "7").k == 7
    assert set_setting("data_root", 'a "quoted" \\ path').data_root == 'a "quoted" \\ path'
    assert settings().data_root == 'a "quoted" \\ path'
    assert set_setting("k", None).k == 10
    with pytest.raises(UnknownName, match="mode"):
        set_setting("mode", "magic")
    with pytest.raises(UnknownName, match="setting"):
        set_setting("kk", "1")
    settings_file().write_text("k = 'seven'\n")
    with pytest.raises(DataFormatError, match="must be int"):
        settings()


def test_names_and_paths_of_collections(home, files, minilm, tmp_path):
    assert collection_path("notes") == home / "collections" / "notes"
    assert collection_path("./here").name == "here"
    for bad in ("a b", "", "x" * 200, "-x"):
        with pytest.raises(InputError, match="letters, digits"):
            collection_path(bad)
    index(files, str(tmp_path / "elsewhere"), minilm)
    assert collection_names() == []
    with pytest.raises(UnknownName, match="isometry index"):
        open_collection("nothing")
