"""Changing a model by the user's data: what is written, what is said of it, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

from isometry.encoders import load
from isometry.errors import InputError, SpaceMismatch, UnknownName
from isometry.tasks import RetrievalTask
from isometry.workbench.budget import parse_duration
from isometry.workbench.comparing import rank_techniques
from isometry.workbench.cutting import cut
from isometry.workbench.distilling import distil_model
from isometry.workbench.merging import merge
from isometry.workbench.reports import verdict_of
from isometry.workbench.reranking import train_reranker
from isometry.workbench.tuning import Choices, Tuned, plan_of, techniques, tune
from isometry.workbench.tuning_data import elsewhere_task, tuning_data
from small_models import ANIMALS, WORDS, save_small_model, write_pairs

CHOICES = Choices(steps=8, batch_size=16, lr=2e-3)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_small_model(tmp_path_factory.mktemp("base") / "small")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("data") / "mine.tsv")


@pytest.fixture(scope="module")
def tuned(base, pairs, tmp_path_factory) -> Tuned:
    out = tmp_path_factory.mktemp("out") / "tuned"
    return tune(pairs, out, base=str(base), choices=CHOICES, elsewhere=())


def test_what_is_written_loads_in_sentence_transformers_with_equal_vectors(tuned):
    from sentence_transformers import SentenceTransformer

    texts = ["a red cat number 3 was seen", "what about the old owl ?"]
    plain = SentenceTransformer(str(tuned.out), device="cpu").encode(texts)
    ours = load(str(tuned.out), engine="torch").encode_document(texts)
    np.testing.assert_allclose(plain, ours, atol=1e-6)
    assert not (tuned.out.parent / ".tuned.unfinished").exists()
    assert [path.name for path in tuned.out.parent.iterdir() if path.name.startswith(".")] == []


def test_card_tells_what_was_measured(tuned):
    facts = json.loads((tuned.out / "isometry.json").read_text())
    card = (tuned.out / "README.md").read_text()
    assert facts["verdict"] == tuned.verdict
    assert tuned.verdict in card
    assert f"{tuned.result.mean_baseline:.4f} | {tuned.result.mean_method:.4f}" in card
    assert facts["steps"] == 8
    assert "40 of 200 rows were held out, by document." in card


def test_training_helps_and_is_judged_on_texts_it_has_not_seen(tuned):
    rows = {text for column in tuned.data.rows.columns for text in column}
    assert isinstance(tuned.data.test, RetrievalTask)
    held = {*tuned.data.test.queries.values(), *(d.text for d in tuned.data.test.corpus)}
    chosen = {*tuned.data.dev.queries.values(), *(d.text for d in tuned.data.dev.corpus)}
    assert not rows & held
    assert not rows & chosen
    assert not chosen & held
    assert tuned.result.n == 40


def test_out_is_not_overwritten(tuned, pairs, base):
    with pytest.raises(InputError, match="exists already; give another --out, or --fresh"):
        tune(pairs, tuned.out, base=str(base), choices=CHOICES, elsewhere=())


def test_interrupted_tuning_goes_on_and_ends_the_same(base, pairs, tmp_path, tuned):
    class Killed(Exception):
        pass

    def killer(what, done, total):
        if what == "training" and done == 5:
            raise Killed

    with pytest.raises(Killed):
        tune(pairs, tmp_path / "tuned", base=str(base), choices=CHOICES, elsewhere=(), progress=killer)
    assert not (tmp_path / "tuned").exists()
    steps = []
    again = tune(
        pairs, tmp_path / "tuned", base=str(base), choices=CHOICES, elsewhere=(),
        progress=lambda what, done, total: steps.append(done) if what == "training" else None,
    )  # fmt: skip
    assert steps[0] > 4
    text = ["a red cat"]
    a, b = (load(str(model.out), engine="torch").encode_document(text) for model in (again, tuned))
    np.testing.assert_allclose(a, b, atol=1e-5)


def test_an_interval_that_includes_0_is_no_improvement(tuned):
    from dataclasses import replace

    unclear = replace(tuned.result, delta=0.02, ci95=(-0.01, 0.05))
    assert verdict_of(unclear).startswith("No improvement shown")
    assert verdict_of(replace(unclear, ci95=(0.01, 0.05))).startswith("Improved")
    assert verdict_of(replace(unclear, ci95=(-0.05, -0.01))).startswith("Worse")
    worse = replace(tuned, elsewhere=[replace(unclear, delta=-0.021), replace(unclear, delta=-0.019)])
    assert len(worse.warnings) == 1


def test_techniques_are_found_without_importing_them():
    assert "gistembed" in techniques()
    with pytest.raises(UnknownName, match="gistembed"):
        plan_of("gistembedd")


@pytest.mark.parametrize(
    ("header", "row", "kind", "metric"),
    [
        ("anchor\tpositive\tnegative", "the {w} {a} {i}\ta {w} {a} {i} seen\ta {w} ship {i} .", "triplets", "accuracy"),
        ("label\ttext", "{a}\tthe {w} {a} number {i}", "labelled", "accuracy"),
        ("sentence1\tsentence2\tscore", "the {w} {a} {i}\ta {a} {i} seen\t{s}", "sts", "spearman"),
        ("sentence1\tsentence2\tlabel", "the {w} {a} {i}\ta {a} {i} seen\t{l}", "pairs", "mrr"),
    ],
)
def test_every_kind_of_table_is_split_without_overlap(tmp_path, header, row, kind, metric):
    lines = [row.format(w=WORDS[i % 10], a=ANIMALS[i % 8], i=i, s=i % 6, l=i % 2) for i in range(160)]
    (tmp_path / "t.tsv").write_text("\n".join([header, *lines]) + "\n")
    data = tuning_data(tmp_path / "t.tsv")
    assert (data.rows.kind, data.metric) == (kind, metric)
    seen = {text for column in data.rows.columns for text in column}
    for task in (data.dev, data.test):
        if kind == "labelled":
            assert not seen & set(task.test_texts)
        elif kind == "triplets":
            assert not seen & {text for texts in task.rows for text in texts}
        elif kind == "sts":
            assert not seen & {*task.left, *task.right}
        else:
            assert not seen & set(task.queries.values())
    elsewhere, name = elsewhere_task(tmp_path / "t.tsv")
    assert name == metric
    assert elsewhere.name


def test_documents_become_pseudo_queries_and_it_says_so(tmp_path):
    for i in range(40):
        text = " ".join(f"The {WORDS[j]} {ANIMALS[i % 8]} number {i} was seen near gate {i * j}." for j in range(1, 5))
        (tmp_path / f"{i}.txt").write_text(text)
    data = tuning_data(tmp_path)
    assert data.synthetic
    assert "inverse cloze" in data.notes[0]
    assert len(data.rows) >= 8


def test_bad_data(tmp_path):
    table = tmp_path / "t.tsv"
    table.write_text("query\tdocument\n" + "a\tb\n" * 30)
    with pytest.raises(InputError):
        tuning_data(table)
    table.write_text("query\tdocument\n" + "".join(f"q{i}\td{i}\n" for i in range(9)))
    with pytest.raises(InputError, match="at least 8"):
        tuning_data(table)
    table.write_text("query\tdocument\n" + "".join(f"q{i}\t{'' if i == 6 else f'd{i}'}\n" for i in range(40)))
    with pytest.raises(InputError, match="Row 7 of"):
        tuning_data(table)
    table.write_text("sentence1\tsentence2\tlabel\n" + "".join(f"q{i}\td{i}\tmaybe\n" for i in range(40)))
    with pytest.raises(InputError, match="belong together"):
        tuning_data(table)
    table.write_text("label\ttext\n" + "".join(f"one\tt{i}\n" for i in range(40)))
    with pytest.raises(InputError, match="at least two"):
        tuning_data(table)


def test_merging_cutting_and_their_cards(base, pairs, tuned, tmp_path):
    other = tune(
        pairs, tmp_path / "other", base=str(base), choices=Choices("gistembed", steps=4, batch_size=16, seed=1),
        elsewhere=(),
    )  # fmt: skip
    facts = merge([str(tuned.out), str(other.out)], tmp_path / "m", method="slerp", data=[str(pairs)])
    assert len(facts["singles"][0]) == 2
    assert "best single" in (tmp_path / "m" / "README.md").read_text()
    smaller = cut(str(tuned.out), tmp_path / "c", layers=1, dims=8, data=[str(pairs)])
    assert load(str(tmp_path / "c")).space.dim == 8
    assert smaller["held_out"]["n"] == 40
    with pytest.raises(InputError, match="--layers, --dims"):
        cut(str(tuned.out), tmp_path / "d")
    with pytest.raises(InputError, match=r"1\.\.16"):
        cut(str(tuned.out), tmp_path / "d", dims=17)
    with pytest.raises(InputError, match="at least two models"):
        merge([str(tuned.out)], tmp_path / "d")
    stranger = save_small_model(tmp_path / "stranger", words=1)
    with pytest.raises(InputError, match="vocabulary"):
        merge([str(tuned.out), str(stranger)], tmp_path / "d")
    assert not (tmp_path / "d").exists()


def test_a_cut_of_dimensions_is_the_prefix_scaled_to_unit_length(base, tmp_path):
    cut(str(base), tmp_path / "c", dims=5)
    texts = ["the red cat", "a tree near the gate"]
    whole = load(str(base), engine="torch").encode_document(texts)[:, :5]
    part = load(str(tmp_path / "c"), engine="torch").encode_document(texts)
    np.testing.assert_allclose(part, whole / np.linalg.norm(whole, axis=1, keepdims=True), atol=1e-6)


def test_a_student_searches_its_teachers_index_and_no_other(base, pairs, tmp_path):
    from isometry.encoders import aligned

    found = distil_model(pairs, tmp_path / "s", teacher=str(base), layers=1, steps=6)
    assert found.asymmetric is not None
    teacher = load(str(base))
    assert aligned(load(str(tmp_path / "s")), teacher.space).space.id == teacher.space.id
    other = save_small_model(tmp_path / "other", seed=5)
    with pytest.raises(SpaceMismatch):
        aligned(load(str(tmp_path / "s")), load(str(other)).space)


def test_the_teacher_reads_every_text_once_even_over_an_interruption(base, pairs, tmp_path, monkeypatch):
    from isometry.encoders import TextEncoder

    read: list[tuple[str, str, str]] = []
    encode = TextEncoder.encode

    def watched(self, texts, *, role, **options):
        read.extend((self.space.id, role, text) for text in texts)
        return encode(self, texts, role=role, **options)

    class Killed(Exception):
        pass

    def killer(what, done, total):
        if what == "training" and done == 5:
            raise Killed

    monkeypatch.setattr(TextEncoder, "encode", watched)
    steps = {"teacher": str(base), "layers": 1, "steps": 6}
    with pytest.raises(Killed):
        distil_model(pairs, tmp_path / "s", progress=killer, **steps)
    assert read
    distil_model(pairs, tmp_path / "s", **steps)
    teacher = load(str(base), engine="torch").space.id
    asked = [(role, text) for space, role, text in read if space == teacher]
    assert len(asked) == len(set(asked))


def test_a_reranker_is_trained_judged_and_written(base, pairs, tmp_path):
    facts = train_reranker(pairs, tmp_path / "r", base=str(base), encoder=str(base), depth=5, steps=3)
    assert facts["held_out"]["metric"] == "ndcg@10"
    from isometry.ranking.cross_encoder import CrossEncoderScorer

    assert CrossEncoderScorer.load(tmp_path / "r").predict([("a cat", "a dog")]).shape == (1,)


def test_techniques_are_ranked_with_equal_steps(base, pairs):
    found = rank_techniques(pairs, ["gistembed"], base=str(base), steps=4)
    assert {slug for slug, _ in found.rows} == {"default", "gistembed"}
    assert all(c.p_adj is not None and c.p_adj >= c.p for _, c in found.rows)
    deltas = [c.delta for _, c in found.rows]
    assert deltas == sorted(deltas, reverse=True)
    with pytest.raises(InputError, match="allow 0 steps each"):
        rank_techniques(pairs, ["gistembed"], base=str(base), budget=1e-3)


@pytest.mark.parametrize("text", ["", "10 parsecs", "0m", "-3s"])
def test_bad_budgets(text):
    with pytest.raises(InputError, match="90s, 10m"):
        parse_duration(text)


def test_a_collection_is_data_too(tmp_path, monkeypatch, base):
    from isometry.workbench import index

    monkeypatch.setenv("ISOMETRY_HOME", str(tmp_path / "home"))
    (tmp_path / "notes").mkdir()
    for i in range(40):
        text = " ".join(f"The {WORDS[j]} {ANIMALS[i % 8]} number {i} was seen near gate {i * j}." for j in range(1, 5))
        (tmp_path / "notes" / f"{i}.txt").write_text(text)
    index(tmp_path / "notes", "mine", load(str(base)))
    data = tuning_data("mine")
    assert data.synthetic
    with pytest.raises(UnknownName, match="no-such-thing"):
        tuning_data("no-such-thing")


def test_low_rank_adapters_are_resumed_and_merged(base, pairs, tmp_path):
    pytest.importorskip("peft")

    class Killed(Exception):
        pass

    def killer(what, done, total):
        if what == "training" and done == 5:
            raise Killed

    choices = Choices(steps=8, batch_size=16, lr=2e-3, lora=2)
    with pytest.raises(Killed):
        tune(pairs, tmp_path / "a", base=str(base), choices=choices, elsewhere=(), progress=killer)
    tune(pairs, tmp_path / "a", base=str(base), choices=choices, elsewhere=())
    tune(pairs, tmp_path / "b", base=str(base), choices=choices, elsewhere=())
    a, b, start = (
        load(str(path), engine="torch").model.state_dict() for path in (tmp_path / "a", tmp_path / "b", base)
    )
    assert a.keys() == start.keys()
    changed = [name for name in a if not np.array_equal(a[name], start[name])]
    assert changed
    for name in a:
        np.testing.assert_allclose(a[name], b[name], atol=1e-5)
    for name in changed:
        assert np.linalg.matrix_rank(a[name] - start[name], tol=1e-5) <= 2
