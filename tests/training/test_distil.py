"""A distilled student reproduces its teacher, is a plain model, and enters the teacher's space only with proof."""

import json

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from isometry.encoders import aligned, alignment_of, load, record_alignment
from isometry.errors import DataFormatError, DimensionMismatch, EmptyInput, InputError, SpaceMismatch
from isometry.indexes import Exact
from isometry.objectives.alignment import align
from isometry.spaces import LeastSquaresMap, agreement
from isometry.training.cross_encoder import Schedule
from isometry.training.distil import distil, fit_output_head, pooled, prompted, student_of, teacher_vectors, vectors_of
from isometry.types import Embeddings

CLOSED = Schedule(steps=0)
NOUNS = ("apple", "river", "engine", "market", "violin", "glacier", "lawyer", "kitchen", "satellite", "poem")
TEXTS = [f"the {a} near the {b} was {c}" for a in NOUNS for b in NOUNS for c in ("old", "lost")]


@pytest.fixture(scope="module")
def encoder():
    return load("minilm", engine="torch")


@pytest.fixture(scope="module")
def targets(encoder):
    return teacher_vectors(encoder.model, {"document": TEXTS})


def test_uncut_student_with_identity_head_is_the_teacher(encoder, targets):
    student = distil(encoder.model, TEXTS[:20], layers=None, ridge=None, schedule=CLOSED, targets=targets[:20])
    np.testing.assert_allclose(student.encode(TEXTS[:20], show_progress_bar=False), targets[:20], atol=2e-5)


def test_closed_form_is_the_least_squares_map_of_the_cut(encoder, targets):
    student = student_of(encoder.model, layers=2)
    fit_output_head(student, TEXTS, targets)
    with torch.no_grad():
        states = pooled(student, TEXTS).numpy()
        plain = student[2]({"sentence_embedding": pooled(student, TEXTS)})["sentence_embedding"].numpy()
    np.testing.assert_allclose(plain, LeastSquaresMap().fit(states, targets).transform(states), atol=1e-4)


def test_an_interrupted_distillation_goes_on_and_ends_the_same(encoder, targets, tmp_path):
    class Killed(Exception):
        pass

    def run(keep=None, progress=None, lr=2e-4):
        plan = Schedule(steps=10, batch_size=8, lr=lr)
        return distil(encoder.model, TEXTS, layers=1, ridge=None, schedule=plan, targets=targets, keep=keep,
                      progress=progress)  # fmt: skip

    def killer(done, total):
        if done == 7:
            raise Killed

    whole = run()
    with pytest.raises(Killed):
        run(tmp_path / "kept", killer)
    with pytest.raises(InputError, match="unfinished run with other lr"):
        run(tmp_path / "kept", lr=1e-4)
    seen = list[int]()
    again = run(tmp_path / "kept", lambda done, total: seen.append(done))
    assert seen[0] == 7  # from the checkpoint of step 6
    for a, b in zip(whole.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


def test_training_draws_near_and_is_reproducible(encoder, targets):
    test = slice(0, None, 5)
    rows = [i for i in range(len(TEXTS)) if i % 5]
    schedule = Schedule(steps=25, batch_size=16, lr=2e-4)
    kept = {"texts": [TEXTS[i] for i in rows], "targets": targets[rows]}
    raw, start = (distil(encoder.model, layers=2, ridge=r, schedule=CLOSED, **kept) for r in (None, "auto"))
    students = [distil(encoder.model, layers=2, ridge=None, schedule=schedule, **kept) for _ in range(2)]
    found = [model.encode(TEXTS[test], show_progress_bar=False) for model in (raw, *students, start)]
    np.testing.assert_array_equal(found[1], found[2])
    quality = [agreement(vectors, targets[test]) for vectors in found]
    assert quality[1]["cosine"] > quality[0]["cosine"] + 0.1
    assert quality[3]["cosine"] > quality[1]["cosine"]  # the closed form is a large head start
    assert quality[1]["distance"] == pytest.approx(2 - 2 * quality[1]["cosine"], abs=1e-4)  # unit vectors


def test_prompts_reach_teacher_and_student_alike(encoder):
    teacher = SentenceTransformer(modules=list(encoder.model), device="cpu", prompts={"query": "find: "})
    roles = {"query": TEXTS[:3], "document": TEXTS[:3]}
    assert prompted(teacher, roles) == [f"find: {t}" for t in TEXTS[:3]] + TEXTS[:3]
    vectors = teacher_vectors(teacher, roles)
    assert not np.allclose(vectors[:3], vectors[3:], atol=1e-3)
    student = distil(teacher, roles, layers=None, ridge=None, schedule=CLOSED)
    np.testing.assert_allclose(student.encode_query(TEXTS[:3], show_progress_bar=False), vectors[:3], atol=2e-5)
    np.testing.assert_allclose(student.encode_document(TEXTS[:3], show_progress_bar=False), vectors[3:], atol=2e-5)


def test_turning_the_teacher_turns_the_head_and_leaves_scores(encoder, targets):
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.normal(size=(384, 384)))[0].astype(np.float32)
    found = []
    for aim in (targets, targets @ turn):
        student = student_of(encoder.model, layers=1)
        fit_output_head(student, TEXTS, aim)
        y = student.encode(TEXTS[:30], show_progress_bar=False)
        found.append((y @ y.T, y @ aim[:30].T))
    for before, after in zip(*found, strict=True):
        np.testing.assert_allclose(before, after, atol=2e-3)


def test_score_error_is_bounded_by_distillation_error(encoder, targets):
    student = distil(encoder.model, TEXTS, layers=2, schedule=CLOSED, targets=targets)
    with torch.no_grad():
        y = vectors_of(student, TEXTS[:50]).numpy()
    off = np.linalg.norm(y - targets[:50], axis=1)
    truth = targets[:50] @ targets[:50].T
    assert (np.abs(y @ targets[:50].T - truth) <= off[:, None] + 1e-5).all()
    assert (np.abs(y @ y.T - truth) <= off[:, None] + off[None, :] + 1e-5).all()
    assert float(align(torch.from_numpy(y), torch.from_numpy(targets[:50]))) == pytest.approx(
        float((off**2).mean()), rel=1e-4
    )


def test_saved_student_loads_anywhere_and_enters_the_space_with_proof_only(encoder, targets, tmp_path):
    student = distil(encoder.model, TEXTS, layers=2, schedule=CLOSED, targets=targets)
    folder = tmp_path / "student"
    student.save(str(folder))
    wanted = student.encode(TEXTS[:5], show_progress_bar=False)
    np.testing.assert_allclose(
        SentenceTransformer(str(folder), device="cpu").encode(TEXTS[:5], show_progress_bar=False), wanted, atol=1e-5
    )
    loaded = load(folder, engine="torch")
    index = Exact.of(Embeddings(targets, [str(i) for i in range(len(TEXTS))], encoder.space, role="document"))
    with pytest.raises(SpaceMismatch):
        index.search(Embeddings(loaded.encode_query(TEXTS[:5]), list("abcde"), loaded.space), 3)
    with pytest.raises(SpaceMismatch, match="equal width does not make equal spaces"):
        aligned(loaded, encoder.space)
    revision = loaded.space.revision
    record_alignment(folder, encoder.space, agreement(wanted, targets[:5]))
    loaded = load(folder, engine="torch")
    assert loaded.space.revision == revision  # the record is no part of the model
    asked = aligned(loaded, encoder.space)
    assert asked.space == encoder.space
    hits = index.search(Embeddings(asked.encode_query(TEXTS[:5]), list("abcde"), asked.space), 1)
    np.testing.assert_allclose(asked.encode_document(TEXTS[:5]), wanted, atol=1e-5)
    assert hits.ids.tolist() == ["0", "1", "2", "3", "4"]
    assert alignment_of(folder).measured["cosine"] > 0.8


def test_proof_is_of_one_space_and_of_these_weights(encoder, targets, tmp_path):
    student = distil(encoder.model, TEXTS[:40], layers=1, schedule=CLOSED, targets=targets[:40])
    student.save(str(tmp_path))
    record_alignment(tmp_path, encoder.space, {})
    with pytest.raises(SpaceMismatch, match="is aligned with minilm"):
        aligned(load(tmp_path, engine="torch"), encoder.space.then("halved"))
    student[2].linear.bias.data += 0.1
    student.save(str(tmp_path))
    with pytest.raises(SpaceMismatch, match="has changed since"):
        aligned(load(tmp_path, engine="torch"), encoder.space)
    record = tmp_path / "isometry" / "aligned_with.json"
    record.write_text(json.dumps({"space": 3}))
    with pytest.raises(DataFormatError, match="record of alignment is broken"):
        alignment_of(tmp_path)
    assert alignment_of("minilm") is None


def test_bad_input(encoder, targets):
    with pytest.raises(EmptyInput, match="Text 1 of role document is empty"):
        distil(encoder.model, ["a", " "])
    with pytest.raises(EmptyInput, match="needs texts"):
        distil(encoder.model, [])
    with pytest.raises(InputError, match="role query or document"):
        distil(encoder.model, {"passage": ["a"]})
    with pytest.raises(DimensionMismatch, match="need targets"):
        distil(encoder.model, TEXTS[:4], targets=targets[:3])
    with pytest.raises(InputError, match=r"cut to 1\.\.6"):
        distil(encoder.model, TEXTS[:4], layers=9, targets=targets[:4])
    with pytest.raises(InputError, match="no revision"):
        record_alignment(".", Embeddings(targets[:1], ["a"], encoder.space).space.__class__("m", 3), {})
