"""Data with odd parts and folders with odd contents: what is held out, what is refused, what is left behind."""

from __future__ import annotations

import json

import pytest

from isometry.errors import InputError
from isometry.training.fine_tuning import TrainingDiverged
from isometry.workbench.comparing import rank_techniques
from isometry.workbench.cutting import cut
from isometry.workbench.distilling import distil_model
from isometry.workbench.merging import merge
from isometry.workbench.outputs import DiskFull, OutputBusy, check_out, replacing, work_folder, working
from isometry.workbench.reranking import train_reranker
from isometry.workbench.tuning import Choices, tune
from isometry.workbench.tuning_data import tuning_data
from small_models import ANIMALS, WORDS, save_small_model, write_pairs


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_small_model(tmp_path_factory.mktemp("base") / "small")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("data") / "mine.tsv")


def _table(path, header, row, numbers):
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join([header, *(row.format(i=i, a=ANIMALS[i % 4], s=i % 6) for i in numbers)]) + "\n")


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("query\tdocument", "what {a} {i} ?\ta {a} {i} seen"),
        ("label\ttext", "{a}\tthe {a} number {i}"),
        ("anchor\tpositive\tnegative", "what {a} {i} ?\ta {a} {i} seen\tno {a} {i}"),
        ("sentence1\tsentence2\tscore", "the {a} {i}\ta {a} {i} seen\t{s}"),
    ],
)
def test_rows_of_both_parts_are_not_trained_on(tmp_path, header, row):
    _table(tmp_path / "d" / "train.tsv", header, row, range(80))
    _table(tmp_path / "d" / "test.tsv", header, row, range(60, 100))
    data = tuning_data(tmp_path / "d")
    seen = {text for column in data.rows.columns for text in column}
    assert not any(f" {i} " in f"{text} " for text in seen for i in range(60, 80))
    assert any("20 rows to train on are also in the held-out part" in note for note in data.notes)


def _beir(folder, queries, **parts):
    (folder / "qrels").mkdir(parents=True)
    texts = [f"a {WORDS[i % 10]} {ANIMALS[i % 8]} number {i}" for i in range(len(queries))]
    lines = [json.dumps({"_id": f"d{i}", "title": "", "text": text}) for i, text in enumerate(texts)]
    (folder / "corpus.jsonl").write_text("\n".join(lines) + "\n")
    lines = [json.dumps({"_id": f"q{i}", "text": text}) for i, text in enumerate(queries)]
    (folder / "queries.jsonl").write_text("\n".join(lines) + "\n")
    for part, numbers in parts.items():
        judged = "".join(f"q{i}\td{i}\t1\n" for i in numbers)
        (folder / "qrels" / f"{part}.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}")
    return folder


def test_a_question_asked_under_two_ids_is_on_one_side(tmp_path):
    data = tuning_data(_beir(tmp_path / "twice", [f"what about {i % 40}" for i in range(80)], test=range(80)))
    asked = {data.test.queries[q] for q in data.test.qrels}
    chosen = {data.dev.queries[q] for q in data.dev.qrels}
    assert not set(data.rows.columns[0]) & (asked | chosen)
    over = tuning_data(
        _beir(tmp_path / "over", [f"what about {i}" for i in range(60)], train=range(60), test=range(40, 60))
    )
    assert not set(over.rows.columns[0]) & {over.test.queries[q] for q in over.test.qrels}


def test_data_that_cannot_be_judged_is_said_to_be_so(tmp_path):
    table = tmp_path / "t.tsv"
    _table(table, "query\tdocument", "the same\tof all", range(40))
    with pytest.raises(InputError, match="about one text"):
        tuning_data(table)
    _table(table, "sentence1\tsentence2\tscore", "the {a} {i}\ta {a} {i} seen\t3", range(60))
    with pytest.raises(InputError, match="all have one score"):
        tuning_data(table)
    _table(table, "one\tother", "the {a} {i}\ta {a} {i} seen", range(60))
    with pytest.raises(InputError, match="name them query and document"):
        tuning_data(table)


def test_few_rows_of_classes_get_smaller_batches(base, tmp_path):
    _table(tmp_path / "t.tsv", "label\ttext", "{a}\tthe {a} number {i}", range(60))
    found = tune(tmp_path / "t.tsv", tmp_path / "m", base=str(base), choices=Choices(steps=2), elsewhere=())
    assert 2 <= found.settings.batch_size < len(found.data.rows)
    ranked = rank_techniques(tmp_path / "t.tsv", ["gistembed"], base=str(base), steps=1)
    assert ranked.batch_size < len(found.data.rows)


def test_a_rate_of_0_is_no_default_and_one_too_high_is_told(base, pairs, tmp_path):
    for rate in (0.0, float("inf")):
        with pytest.raises(InputError, match="lr > 0"):
            tune(pairs, tmp_path / "m", base=str(base), choices=Choices(steps=3, lr=rate), elsewhere=())
        assert not list(tmp_path.iterdir())
    with pytest.raises(TrainingDiverged, match="lower"):
        tune(pairs, tmp_path / "m", base=str(base), choices=Choices(steps=3, lr=1e30), elsewhere=())


def test_a_model_is_not_replaced_by_what_is_made_of_it(base, pairs, tmp_path):
    with pytest.raises(InputError, match="must name the folder"):
        cut(str(base), tmp_path / "..", layers=1)
    cut(str(base), tmp_path / "c", layers=1)
    with pytest.raises(InputError, match="this command reads"):
        cut(str(tmp_path / "c"), tmp_path / "c", dims=4, fresh=True)
    with pytest.raises(InputError, match="not a model of this command"):
        cut(str(tmp_path / "c"), base, dims=4, fresh=True)
    cut(str(base), tmp_path / "c", dims=4, fresh=True)
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_one_process_at_a_time_writes_a_model(tmp_path):
    with working(tmp_path / "m"), pytest.raises(OutputBusy, match="Another process"), working(tmp_path / "m"):
        pass
    assert not list(tmp_path.iterdir())


def test_what_a_killed_process_left_is_cleared_or_put_back(tmp_path):
    out, work = tmp_path / "m", work_folder(tmp_path / "m")
    (work / "model-abc").mkdir(parents=True)
    (work / "replaced").mkdir()
    (work / "replaced" / "isometry.json").write_text("{}")
    with working(out), replacing(tmp_path / "m") as folder:
        assert (out / "isometry.json").exists()
        assert not (work / "model-abc").exists()
        (folder / "new").write_text("")
    assert [path.name for path in out.iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("PytorchStreamWriter failed")])
def test_a_full_disk_is_one_sentence(tmp_path, error):
    def write():
        with working(tmp_path / "m") as work:
            (work / "checkpoint-3").mkdir()
            raise error

    with pytest.raises(DiskFull, match="no room left"):
        write()
    assert (work_folder(tmp_path / "m") / "checkpoint-3").is_dir()


def test_a_run_does_not_go_on_from_another_model(base, pairs, tmp_path):
    class Killed(Exception):
        pass

    def killer(what, done, total):
        if what == "training" and done == 5:
            raise Killed

    choices = Choices(steps=8, batch_size=16)
    with pytest.raises(Killed):
        tune(pairs, tmp_path / "m", base=str(base), choices=choices, elsewhere=(), progress=killer)
    other = save_small_model(tmp_path / "other", seed=7)
    with pytest.raises(InputError, match="other base"):
        tune(pairs, tmp_path / "m", base=str(other), choices=choices, elsewhere=())
    tune(pairs, tmp_path / "m", base=str(other), choices=choices, elsewhere=(), fresh=True)


def test_rerankers_are_described_as_such(base, pairs, tmp_path, capfd):
    train_reranker(pairs, tmp_path / "r", base=str(base), encoder=str(base), depth=999, steps=1)
    card = (tmp_path / "r" / "README.md").read_text()
    assert 'CrossEncoder("r")' in card
    assert "SentenceTransformer(" not in card
    assert "999" not in card
    assert "shards" not in capfd.readouterr().err
    train_reranker(pairs, tmp_path / "r", base=str(base), encoder=str(base), steps=1, fresh=True)


def test_a_teacher_that_is_worse_than_chance_is_not_divided_by(base, tmp_path):
    from dataclasses import replace

    _table(tmp_path / "t.tsv", "sentence1\tsentence2\tscore", "the {a} {i}\ta {a} {i} seen\t{s}", range(60))
    found = distil_model(tmp_path / "t.tsv", tmp_path / "s", teacher=str(base), layers=1, steps=1)
    for quality in (0.0, -0.2):
        worse = replace(found, against_teacher=replace(found.against_teacher, mean_baseline=quality))
        assert "It keeps" not in worse.to_dict()["verdict"]


def test_merging_says_what_each_method_takes(base, tmp_path):
    two = [str(base), str(base)]
    with pytest.raises(InputError, match="needs --base"):
        merge(two, tmp_path / "m", method="task-arithmetic")
    with pytest.raises(InputError, match="no --weights"):
        merge(two, tmp_path / "m", method="slerp", weights=[1, 2])


def test_a_set_is_not_watched_under_another_name(base, pairs, tmp_path):
    found = tune(
        pairs, tmp_path / "m", base=str(base), choices=Choices(steps=1),
        elsewhere=[str(pairs.parent / ".." / pairs.parent.name / pairs.name)],
    )  # fmt: skip
    assert not found.elsewhere


def test_check_out_lets_an_empty_folder_be_written(tmp_path):
    (tmp_path / "m").mkdir()
    check_out(tmp_path / "m")
