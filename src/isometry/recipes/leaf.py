"""LEAF: a small student reproduces its teacher's vectors, so it can ask questions of an index the teacher built.

Students are the teacher's own first layers with a linear output head. Every depth is solved in closed form from one
pass over the texts; one depth is then trained. Retrieval is of utterances with the query's intent. Prefixes are studied
with two teachers: the encoder as it is, whose dimensions are in no order, and the same encoder after Matryoshka
training on pairs of one class, so that its prefixes were trained. Losses by prefixes and codes are shares of a system's
own full quality.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from isometry.codes import BinaryCode, ScalarCode
from isometry.errors import RecipeError
from isometry.lab import Card, Claim, Lab, Outcome, Plot
from isometry.negatives import AnyOf, same_label, same_text
from isometry.objectives import InfoNCE, Matryoshka
from isometry.spaces import LeastSquaresMap, agreement
from isometry.tasks.metrics import evaluate_run
from isometry.tasks.size_grid import layer_vectors
from isometry.training import align_student
from isometry.training.cross_encoder import Schedule
from isometry.training.distil import fit_output_head, student_of
from isometry.training.fine_tuning import Settings
from isometry.training.rows import fitting_size, labelled_rows
from isometry.training.sizes import tune_in_memory
from isometry.types import FloatArray, Hits, Scores, unit

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

CARD = Card(
    slug="leaf",
    title="LEAF: Knowledge Distillation of Text Embedding Models with Teacher-Aligned Representations",
    arxiv="2509.12539",
    year=2025,
    kind="training method and serving scheme",
    summary=(
        "A small encoder is trained to reproduce a teacher's vectors in squared distance, from texts alone: no pairs, "
        "no labels, no access to the teacher's insides. Its vectors live in the teacher's space, so documents can be "
        "indexed once by the teacher and asked for by the student, and whatever the teacher's vectors tolerate "
        "(shortening, quantisation) the student's tolerate too. The linear output head has a closed form that is a "
        "large head start."
    ),
    mechanism=(
        "isometry.objectives.alignment:align",
        "isometry.training.distil:distil",
        "isometry.encoders.alignment:aligned",
    ),
    parts=(
        "isometry.spaces.least_squares:LeastSquaresMap",
        "isometry.spaces.least_squares:agreement",
        "isometry.encoders.alignment:record_alignment",
        "isometry.modules.layer_cut:cut_layers",
        "isometry.modules.layer_states:layer_embeddings",
        "isometry.objectives.matryoshka:Matryoshka",
        "isometry.codes.scalar:ScalarCode",
        "isometry.codes.binary:BinaryCode",
    ),
    needs=("labelled",),
    aliases=("embedding distillation", "asymmetric retrieval", "teacher-aligned student", "LEAF"),
    aspects={"task": "retrieval", "method": "embedding regression on a teacher's vectors", "data": "texts alone"},
    headline="nDCG@10 of 53.6 on BEIR with 23M parameters, 54.0 with documents embedded by the teacher",
    claims=(
        Claim(
            "a student aligned in closed form retrieves far better than the same layers as they are",
            key="beats-raw-cut",
            task="cls/banking77", metric="ndcg@10", baseline="raw cut",
            margin=0.1,
        ),
        Claim(
            "the teacher on both sides is better than a student's queries against the teacher's documents",
            key="teacher-first",
            task="cls/banking77", metric="ndcg@10", baseline="asymmetric",
        ),
        Claim(
            "a student's queries against the teacher's documents are better than the student on both sides",
            key="asymmetric-second",
            task="cls/banking77", metric="ndcg@10", baseline="standard",
        ),
        Claim(
            "training from the closed form makes the student better on both sides",
            key="training-helps",
            task="cls/banking77", metric="ndcg@10", baseline="closed form",
            seeds=3,
        ),
        Claim(
            "that training costs its queries against the teacher's documents at most one point",
            key="asymmetric-kept",
            task="cls/banking77", metric="ndcg@10", baseline="closed form, asymmetric",
            margin=-0.01,
            seeds=3,
        ),
        Claim("cut to a quarter of its dimensions, a student loses at most three points more than its teacher, "
              "whose prefixes were trained",
              key="prefixes-inherited", task="cls/banking77", metric="share of ndcg@10 lost", baseline="teacher",
              sign="<", margin=-0.03),
        Claim("so it does where the teacher's prefixes were not",
              key="curve-inherited", task="cls/banking77", metric="share of ndcg@10 lost", baseline="teacher",
              sign="<", margin=-0.03),
        Claim("a student of the teacher with trained prefixes loses less than one of the other",
              key="training-inherited", task="cls/banking77", metric="share of ndcg@10 lost",
              baseline="student of the teacher as it is", sign="<"),
        Claim("as signs alone, a student loses at most three points more than its teacher",
              key="signs-inherited", task="cls/banking77", metric="share of ndcg@10 lost", baseline="teacher",
              sign="<", margin=-0.03),
        Claim("as bytes, a student loses at most three points more than its teacher",
              key="bytes-inherited", task="cls/banking77", metric="share of ndcg@10 lost", baseline="teacher",
              sign="<", margin=-0.03),
        Claim("no score errs by more than the distillation errors of its sides", key="error-bound", invariant=True),
        Claim("between unit vectors the loss is 2 - 2 cos", key="loss-is-cosine", invariant=True),
        Claim("turning the teacher's space changes no score", key="rotation", invariant=True),
        Claim("a student that keeps all layers is its teacher", key="whole-student", invariant=True),
    ),
    presets={
        "smoke": {"texts": 300, "docs": 200, "queries": 60, "layer": 2, "seeds": 1, "steps": 3, "batch": 16,
                  "lr": 2e-4, "teacher": "", "body": "", "prefix_steps": 2},
        "laptop": {"texts": 5000, "docs": 2000, "queries": 500, "layer": 2, "seeds": 3, "steps": 200, "batch": 32,
                   "lr": 2e-4, "teacher": "", "body": "", "prefix_steps": 200},
        "paper": {"texts": 0, "docs": 2000, "queries": 1000, "layer": 6, "seeds": 3, "steps": 200_000, "batch": 32,
                  "lr": 1e-4, "teacher": "Snowflake/snowflake-arctic-embed-m-v1.5", "body": "minilm",
                  "prefix_steps": 0},
    },
)  # fmt: skip

METRIC = "ndcg@10"


@dataclass(frozen=True)
class Study:
    """Texts to learn from, to search and to ask; what teacher and student make of them.

    ``teacher`` holds vectors by set (``train``, ``docs``, ``queries``), ``depths`` the student body's pooled states
    by set and layer, ``sources`` the rows of each kind of training text, ``classes`` the class of each in-domain one.
    """

    texts: Mapping[str, list[str]]
    teacher: Mapping[str, FloatArray]
    depths: Mapping[str, list[FloatArray]]
    qrels: Mapping[str, Mapping[str, int]]
    sources: Mapping[str, slice]
    classes: list[str]
    task: str


def run(lab: Lab) -> Outcome:
    """Align students of every depth in closed form, train one, shorten and quantise it."""
    outcome = Outcome()
    teacher, body = models(lab)
    study = prepare(lab, teacher, body)
    students = [closed_form(study, n, study.teacher) for n in range(len(study.depths["train"]))]
    layer = lab.config["layer"]
    report_depths(study, students, outcome)
    full = score(study, "teacher", study.teacher["queries"], study.teacher["docs"])
    raw = [score(study, f"raw cut, {n} layers", study.depths["queries"][n], study.depths["docs"][n])
           for n in range(len(students))]  # fmt: skip
    standard = [score(study, f"standard, {n} layers", s["queries"], s["docs"]) for n, s in enumerate(students)]
    asymmetric = [score(study, f"asymmetric, {n} layers", s["queries"], study.teacher["docs"])
                  for n, s in enumerate(students)]  # fmt: skip
    outcome.compare("beats-raw-cut", standard[layer], raw[layer], metric=METRIC)
    outcome.compare("teacher-first", full, asymmetric[layer], metric=METRIC)
    outcome.compare("asymmetric-second", asymmetric[layer], standard[layer], metric=METRIC)
    rows = {"raw cut": raw, "student on both sides": standard, "student asks teacher's documents": asymmetric}
    curves = {name: [(n, s.mean(METRIC)) for n, s in enumerate(by_layer)] for name, by_layer in rows.items()}
    curves["teacher"] = [(0, full.mean(METRIC)), (len(students) - 1, full.mean(METRIC))]
    outcome.plot("depth", Plot("Students in closed form", "layers kept", "nDCG@10", curves))
    outcome.fact("ndcg@10 of the teacher", round(full.mean(METRIC), 4))
    outcome.fact(
        "ndcg@10 by layers kept", {k: [round(y, 4) for _, y in v] for k, v in curves.items() if k != "teacher"}
    )
    trained(lab, study, teacher, body, outcome, (standard[layer], asymmetric[layer]))
    prefixes(lab, study, teacher, students[layer], outcome)
    codes(study, students[layer], outcome)
    check_invariants(study, students[layer], teacher, outcome)
    return outcome


def models(lab: Lab) -> tuple[SentenceTransformer, SentenceTransformer]:
    """Return the teacher and the model whose layers the student takes: by default both the lab's encoder."""
    from isometry.encoders import load

    names = (lab.config["teacher"], lab.config["body"])
    teacher = load(names[0], engine="torch").model if names[0] else lab.encoder().model
    return teacher, load(names[1], engine="torch").model if names[1] else teacher


def prepare(lab: Lab, teacher: SentenceTransformer, body: SentenceTransformer) -> Study:
    """Embed the texts at every depth of the body, and by the teacher, with the teacher's prompts."""
    texts, qrels, sources, classes = split(lab)
    vectors, depths = dict[str, FloatArray](), dict[str, list[FloatArray]]()
    for name, rows in texts.items():
        lab.progress(f"embedding {name}", len(vectors), len(texts))
        depths[name] = list(layer_vectors(body, [prompt_of(teacher, name) + text for text in rows]))
        vectors[name] = unit(depths[name][-1]) if body is teacher else encoded(teacher, name, rows)
    task = "cls/banking77" if lab.user_data is None else "own texts"
    return Study(texts, vectors, depths, qrels, sources, classes, task)


def prompt_of(teacher: SentenceTransformer, name: str) -> str:
    """Return what the teacher puts before the texts of a set."""
    return (teacher.prompts or {}).get("query" if name == "queries" else "document") or ""


def encoded(model: SentenceTransformer, name: str, texts: list[str], prompt: str | None = None) -> FloatArray:
    """Return unit vectors of the texts of a set, with its prompt or the one given."""
    prompt = prompt_of(model, name) if prompt is None else prompt
    return unit(np.asarray(model.encode(texts, prompt=prompt, show_progress_bar=False), np.float32))


def split(lab: Lab) -> tuple[dict[str, list[str]], dict[str, dict[str, int]], dict[str, slice], list[str]]:
    """Texts by set, judgments (documents with the query's label), rows of each source, classes of the in-domain one."""
    config, rng = lab.config, np.random.default_rng(0)
    pool = lab.labelled("cls/banking77", "train" if lab.user_data is None else "test")
    both, labels, other = list(pool.texts), list(pool.labels), list[str]()
    order = rng.permutation(len(both)).tolist()
    if lab.user_data is None:
        asked, more = lab.labelled("cls/banking77", "test"), lab.sts("sts/stsb", "train")
        order += (len(both) + rng.permutation(len(asked.texts))).tolist()
        both, labels, other = both + list(asked.texts), labels + list(asked.labels), sorted({*more.left, *more.right})
    asking, docs = min(config["queries"], len(both) // 6), min(config["docs"], len(both) // 3)
    if asking < 5:
        raise RecipeError(f"Distillation needs some labelled texts to judge by, at least 30; got {len(both)}.")
    groups = {"docs": order[:docs], "queries": order[-asking:]}
    known = {both[i] for rows in groups.values() for i in rows}
    own = [i for i in order[docs:-asking] if both[i] not in known]
    limit = config["texts"] or len(own) + len(other)
    other = [other[i] for i in rng.permutation(len(other)) if other[i] not in known][: limit // 2]
    own = own[: limit - len(other)]
    by_label: dict[str, list[str]] = {}
    for row, i in enumerate(groups["docs"]):
        by_label.setdefault(labels[i], []).append(str(row))
    qrels = {str(q): dict.fromkeys(by_label.get(labels[i], []), 1) for q, i in enumerate(groups["queries"])}
    sources = {"in-domain": slice(0, len(own)), "other": slice(len(own), None)}
    texts = {
        "train": [both[i] for i in own] + other,
        **{name: [both[i] for i in rows] for name, rows in groups.items()},
    }
    if not other:
        del sources["other"]
    return texts, qrels, sources, [labels[i] for i in own]


def closed_form(study: Study, layer: int, teacher: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    """A student of one depth: the ridge least-squares map of frozen states to a teacher's vectors, by set."""
    head = LeastSquaresMap().fit(study.depths["train"][layer], teacher["train"])
    return {name: unit(head.transform(by_layer[layer])) for name, by_layer in study.depths.items()}


def report_depths(study: Study, students: list[dict[str, FloatArray]], outcome: Outcome) -> None:
    """Record how near students of every depth come to their teacher."""
    found = [agreement(s["queries"], study.teacher["queries"]) for s in students]
    curves = {label: [(n, f[key]) for n, f in enumerate(found)]
              for key, label in (("cosine", "mean cosine"), ("r2", "centred R²"))}  # fmt: skip
    outcome.fact("agreement with the teacher on held-out queries, by layers kept",
                 {label: [round(y, 4) for _, y in curve] for label, curve in curves.items()})  # fmt: skip
    outcome.plot("agreement", Plot("Agreement with the teacher on held-out queries", "layers kept", "share", curves))


def score(study: Study, system: str, queries: FloatArray, docs: FloatArray) -> Scores:
    """nDCG@10 of every query by cosine."""
    similarity = unit(queries) @ unit(docs).T
    top = np.argpartition(-similarity, min(10, similarity.shape[1] - 1), axis=1)[:, :10]
    rows = [[(str(j), float(similarity[i, j])) for j in row] for i, row in enumerate(top)]
    return evaluate_run(study.qrels, Hits.build([str(i) for i in range(len(rows))], rows), [METRIC],
                        task=study.task, system=system)  # fmt: skip


def trained(
    lab: Lab, study: Study, teacher: SentenceTransformer, body: SentenceTransformer, outcome: Outcome,
    start: tuple[Scores, Scores],
) -> None:  # fmt: skip
    """Train the student of one depth from its closed form; scores are means over seeds, units are queries."""
    config, runs = lab.config, list[tuple[Scores, Scores]]()
    rows = [prompt_of(teacher, "train") + text for text in study.texts["train"]]
    begun = student_of(teacher, layers=config["layer"], body=None if body is teacher else body)
    fit_output_head(begun, rows, study.teacher["train"])
    begun[0].auto_model.embeddings.requires_grad_(False)  # a few thousand texts teach few words
    for seed in lab.seeds:
        lab.progress("training", seed, len(lab.seeds))
        student = copy.deepcopy(begun)
        plan = Schedule(config["steps"], config["batch"], lr=config["lr"], seed=seed)
        losses = align_student(student, rows, study.teacher["train"], plan)
        found = {
            name: encoded(student, name, study.texts[name], prompt_of(teacher, name)) for name in ("queries", "docs")
        }
        runs.append((score(study, "trained", found["queries"], found["docs"]),
                     score(study, "trained, asymmetric", found["queries"], study.teacher["docs"])))  # fmt: skip
        if seed == lab.seeds[0]:
            report_training(study, student, losses, found["queries"], outcome)
    both, asymmetric = (mean_of([r[i] for r in runs], name) for i, name in enumerate(("trained", "asymmetric")))
    outcome.compare("training-helps", both, start[0], metric=METRIC)
    outcome.compare("asymmetric-kept", asymmetric, start[1], metric=METRIC)
    for name, scores in {"standard": both, "asymmetric": asymmetric}.items():
        outcome.fact(f"ndcg@10 after training, {name}", round(scores.mean(METRIC), 4))


def report_training(
    study: Study, student: SentenceTransformer, losses: list[float], queries: FloatArray, outcome: Outcome
) -> None:
    """Record what training did to the distance, by source of text and on held-out queries."""
    for name, rows in study.sources.items():
        texts = study.texts["train"][rows][:500]
        vectors = np.asarray(student.encode(texts, show_progress_bar=False), np.float32)
        found = agreement(vectors, study.teacher["train"][rows][:500])
        outcome.fact(f"agreement after training, {name} texts", {k: round(v, 4) for k, v in found.items()})
    held = agreement(queries, study.teacher["queries"])
    outcome.fact("agreement after training, held-out queries", {k: round(v, 4) for k, v in held.items()})
    width = max(1, len(losses) // 20)
    curve = [(i + 1, float(np.mean(losses[i : i + width]))) for i in range(0, len(losses), width)]
    outcome.plot(
        "training", Plot("Distance to the teacher's vectors", "step", "mean squared distance", {"loss": curve})
    )


def mean_of(runs: list[Scores], system: str) -> Scores:
    """Mean over seeds of every query's score."""
    by_query = [r.by_unit(METRIC) for r in runs]
    return Scores.of(runs[0].task, system, {METRIC: {q: float(np.mean([b[q] for b in by_query])) for q in by_query[0]}})


def prefix_trained(lab: Lab, study: Study, teacher: SentenceTransformer, widths: list[int]) -> Mapping[str, FloatArray]:
    """Vectors, by set, of the teacher after Matryoshka training on pairs of one class; without steps it is as it is."""
    if not lab.config["prefix_steps"]:
        return study.teacher
    model, texts = copy.deepcopy(teacher), study.texts["train"][study.sources["in-domain"]]
    rows = labelled_rows(texts, study.classes)
    model[0].auto_model.get_input_embeddings().requires_grad_(False)
    inner = InfoNCE(mask=AnyOf((same_text, same_label)))
    settings = Settings(lab.config["prefix_steps"], fitting_size(rows, 16), max_tokens=64)
    watch = partial(lab.progress, "training prefixes")
    tune_in_memory(model, rows, Matryoshka(model, inner, dims=widths), settings, progress=watch)
    return {name: encoded(model, name, list(rows)) for name, rows in study.texts.items()}


def prefixes(
    lab: Lab, study: Study, teacher: SentenceTransformer, student: Mapping[str, FloatArray], outcome: Outcome
) -> None:
    """Shorten two teachers and their students: as it is, and with prefixes that were trained."""
    dim, curves = study.teacher["train"].shape[1], {}
    widths = [w for w in (dim // 16, dim // 8, dim // 4, dim // 2, dim) if w]
    trained = prefix_trained(lab, study, teacher, widths)
    pairs = {
        "as it is": (study.teacher, student), "trained": (trained, closed_form(study, lab.config["layer"], trained)),
    }  # fmt: skip
    lost = dict[tuple[str, str], Scores]()
    for kind, pair in pairs.items():
        for who, sides in zip(("teacher", "student"), pair, strict=True):
            found = [score(study, who, sides["queries"][:, :w], sides["docs"][:, :w]) for w in widths]
            curves[f"{who}, {kind}"] = [(w, s.mean(METRIC)) for w, s in zip(widths, found, strict=True)]
            lost[who, kind] = loss_of(found[-1], found[-3])
    outcome.compare("prefixes-inherited", lost["student", "trained"], lost["teacher", "trained"])
    outcome.compare("curve-inherited", lost["student", "as it is"], lost["teacher", "as it is"])
    outcome.compare("training-inherited", lost["student", "trained"], lost["student", "as it is"])
    outcome.plot("prefixes", Plot("Prefixes of the vectors", "dimensions", "nDCG@10", curves, log_x=True))
    outcome.fact("ndcg@10 by dimensions", {k: {str(w): round(y, 4) for w, y in v} for k, v in curves.items()})


def codes(study: Study, student: Mapping[str, FloatArray], outcome: Outcome) -> None:
    """Keep the documents as codes, the queries as they are."""
    sides: dict[str, Mapping[str, FloatArray]] = {"teacher": study.teacher, "student": student}
    for name, code in {"signs": BinaryCode, "bytes": ScalarCode}.items():
        lost = {}
        for who, vectors in sides.items():
            fitted = code().fit(vectors["docs"])
            stored = fitted.inverse_transform(fitted.transform(vectors["docs"]))
            full, coded = (score(study, who, vectors["queries"], docs) for docs in (vectors["docs"], stored))
            lost[who] = loss_of(full, coded)
        outcome.fact(f"share of ndcg@10 lost as {name}", {who: round(s.mean("loss"), 4) for who, s in lost.items()})
        outcome.compare(f"{name}-inherited", lost["student"], lost["teacher"])


def loss_of(full: Scores, less: Scores) -> Scores:
    """What each query loses, as a share of the mean of all in full."""
    before, after, mean = full.by_unit(METRIC), less.by_unit(METRIC), full.mean(METRIC)
    return Scores.of(full.task, full.system, {"loss": {q: (before[q] - after[q]) / mean for q in before}})


def check_invariants(
    study: Study, student: Mapping[str, FloatArray], teacher: SentenceTransformer, outcome: Outcome
) -> None:
    """Check on real vectors what must hold exactly."""
    y, aim = student, study.teacher
    truth = aim["queries"] @ aim["docs"].T
    off = {side: np.linalg.norm(y[side] - aim[side], axis=1) for side in ("queries", "docs")}
    excess = max(
        float((np.abs(y["queries"] @ aim["docs"].T - truth) - off["queries"][:, None]).max()),
        float((np.abs(y["queries"] @ y["docs"].T - truth) - off["queries"][:, None] - off["docs"]).max()),
    )
    outcome.invariant("error-bound", excess <= 1e-5, f"largest excess over the bound: {excess:.1e}")
    found = agreement(y["queries"], aim["queries"])
    gap = abs(found["distance"] - (2 - 2 * found["cosine"]))
    outcome.invariant("loss-is-cosine", gap < 1e-5, f"difference: {gap:.1e}")
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.normal(size=(aim["train"].shape[1],) * 2))[0].astype(np.float32)
    turned = {name: vectors @ turn for name, vectors in aim.items()}
    layer = study.depths["train"][2]
    scores = []
    for space in (aim, turned):
        head = LeastSquaresMap().fit(layer, space["train"])
        scores.append(unit(head.transform(study.depths["queries"][2])) @ space["docs"].T)
    worst = float(np.abs(scores[0] - scores[1]).max())
    outcome.invariant("rotation", worst < 1e-4, f"largest change of a score: {worst:.1e}")
    whole = student_of(teacher)
    texts = study.texts["queries"][:16]
    vectors = [np.asarray(m.encode(texts, show_progress_bar=False)) for m in (whole, teacher)]
    worst = float(np.abs(vectors[0] - vectors[1]).max())
    outcome.invariant("whole-student", worst < 1e-4, f"largest difference of a number: {worst:.1e}")
