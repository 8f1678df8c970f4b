"""Train a reranker on judged or paired data, and see what it adds to the search it reorders."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from isometry.errors import InputError
from isometry.stats import compare
from isometry.tasks import RetrievalTask
from isometry.types import Hits, Queries, Scores
from isometry.types.progress import NamedProgress, silent
from isometry.workbench.budget import seconds_each, settled_steps
from isometry.workbench.model_card import write_card
from isometry.workbench.outputs import check_out, replacing, working
from isometry.workbench.reports import comparison_dict, verdict_of
from isometry.workbench.rerankers import MAX_TOKENS, Reranker, Slates, new_reranker
from isometry.workbench.tuning_data import TuningData, tuning_data

if TYPE_CHECKING:
    from isometry.encoders import TextEncoder
    from isometry.training.cross_encoder import Schedule

NEGATIVES = 4
MARGIN = 0.05  # a candidate within this share of its positive's score may be one itself
SHARE, JUDGING_SHARE = 0.5, 0.3  # of the budget
JUDGED, FEWEST_JUDGED = 200, 30


def train_reranker(
    source: str | Path, out: Path, *, kind: str = "cross-encoder", base: str | None = None, encoder: str = "minilm",
    depth: int = 20, budget: float = 600.0, steps: int | None = None, seed: int = 0, root: Path | None = None,
    fresh: bool = False, progress: NamedProgress | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Train a reranker on mined candidates and judge it on the ``depth`` best hits of held-out queries.

    Parameters
    ----------
    source
        See `tuning_data`: a BEIR folder, pairs or documents.
    kind
        ``"cross-encoder"``, or ``"yes-no"``: a language model asked whether a document answers the query.
    base
        The model to start from; of a cross-encoder, its transformer. None: ``minilm`` or ``smollm2``.
    encoder
        The first stage: finds candidates to train on, and the hits to reorder.
    depth
        How many hits are reordered.

    Raises
    ------
    InputError
        If the data has no queries to rank documents for.
    """
    from isometry.encoders import load
    from isometry.modules.quiet import quiet
    from isometry.training.feeds import digest

    started, report = time.perf_counter(), progress or silent
    check_out(out, fresh=fresh, sources=[base or "", encoder])
    data = tuning_data(source, root=root)
    if not isinstance(data.test, RetrievalTask):
        raise InputError(
            f"A reranker orders documents for a query; {data.name} holds {data.rows.kind} rows. Give pairs, a BEIR "
            "folder or documents."
        )
    first = load(encoder)
    report("finding candidates", 0, None)
    slates = mined_slates(data, first, seed)
    if not slates.queries:
        raise InputError(
            f"{encoder} finds no hard negatives in {data.name}: its other documents are all as near to the queries as "
            "the right ones. Give more data, or another --encoder."
        )
    depth = min(depth, len(data.test.corpus))
    reranker = new_reranker(kind, base, seed)
    about = {
        "data": data.name, "base": reranker.identity, "first stage": first.space.id,
        "texts": digest([query, *row] for query, row in zip(slates.queries, slates.texts, strict=True)),
    }  # fmt: skip
    with working(out, fresh=fresh) as work:
        schedule = _train(reranker, slates, steps, budget, work, seed, report, about)
        report("measuring", 0, None)
        most = _affordable(reranker, slates, depth, budget)
        before, after = judge(data.test, first, reranker.scorer, depth, seed, most)
        found = compare(after, before, "ndcg@10")
        with replacing(out) as folder:
            with quiet():
                reranker.scorer.save(folder)
            facts = {
                "out": str(out), "kind": kind, "base": base or reranker.base, "first_stage": encoder, "data": data.name,
                "slates": len(slates.queries), "steps": schedule.steps, "depth": depth, "max_tokens": MAX_TOKENS,
                "synthetic": data.synthetic, "seconds": round(time.perf_counter() - started, 1),
                "held_out": {**comparison_dict(found), "task": f"{data.name}: {depth} best hits reordered"},
                "elsewhere": [], "verdict": verdict_of(found, "the order of the first stage"), "warnings": [],
                "notes": list(data.notes), "compared": ["as found", "reordered"],
            }  # fmt: skip
            write_card(folder, facts, title=out.name)
    return facts


def mined_slates(data: TuningData, encoder: TextEncoder, seed: int) -> Slates:
    """Pair each query with its positive and hard negatives that keep a margin below the positive's score.

    Candidates are the documents of the rows themselves, so that nothing held out is looked at.
    """
    from isometry.encoders import embed
    from isometry.negatives import Relative, mine

    queries, positives = list(data.rows.columns[0]), list(data.rows.columns[1])
    documents = list(dict.fromkeys(positives))
    place = {text: row for row, text in enumerate(documents)}
    together: dict[str, set[int]] = {}
    for query, positive in zip(queries, positives, strict=True):
        together.setdefault(query, set()).add(place[positive])
    if len(documents) <= NEGATIVES + max(map(len, together.values())):
        raise InputError(f"{len(documents)} different documents are too few to draw {NEGATIVES} negatives a query.")
    q = embed(encoder, queries, role="query", on_truncate="ignore").vectors
    d = embed(encoder, documents, role="document", on_truncate="ignore").vectors
    found = mine(
        q, d, [together[query] for query in queries], k=NEGATIVES, margin=Relative(MARGIN), texts=(queries, documents),
        seed=seed,
    )  # fmt: skip
    texts = [
        [positive, *(documents[int(r)] for r in row if r >= 0)]
        for positive, row in zip(positives, found.rows, strict=True)
    ]
    kept = [i for i, row in enumerate(texts) if len(row) > 1]
    return Slates([queries[i] for i in kept], [texts[i] for i in kept])


def judge(
    task: RetrievalTask, encoder: Any, scorer: Any, depth: int, seed: int, most: int = JUDGED
) -> tuple[Scores, Scores]:
    """Score the first ``depth`` hits of at most ``most`` judged queries, as found and as reordered."""
    from isometry.ranking import Rerank
    from isometry.tasks import evaluate_run

    judged = [query for query, grades in task.qrels.items() if any(grade > 0 for grade in grades.values())]
    chosen = sorted(np.random.default_rng(seed).permutation(len(judged))[:most].tolist())
    few = replace(task, qrels={judged[i]: task.qrels[judged[i]] for i in chosen}, k=max(depth, 100))
    texts = {judged[i]: task.queries[judged[i]] for i in chosen}
    hits = few.search(encoder, texts)
    stage = Rerank(scorer, depth=depth, texts={d.id: d.content for d in task.corpus})
    ordered = stage(Queries.of(texts), hits)
    cut = Hits.build(ordered.query_ids, [hits.row(i)[:depth] for i in range(len(hits))])
    first, second = (evaluate_run(few.qrels, h, ("ndcg@10",), task=task.name, system=name) for h, name in (
        (cut, "as found"), (ordered, "reordered"),
    ))  # fmt: skip
    return first, second


def _train(
    reranker: Reranker, slates: Slates, steps: int | None, budget: float, folder: Path, seed: int,
    report: NamedProgress, about: Mapping[str, Any],
) -> Schedule:  # fmt: skip
    from isometry.training import Checkpoints
    from isometry.training.cross_encoder import Schedule

    count = steps or settled_steps(folder, lambda: _steps(reranker, slates, budget))
    schedule = Schedule(steps=count, batch_size=reranker.batch_size, lr=reranker.lr, seed=seed)
    keep = Checkpoints(
        folder, every=max(5, schedule.steps // 10),
        about={**about, "steps": schedule.steps, "seed": seed},
    )  # fmt: skip
    reranker.train(slates, schedule, keep=keep, progress=lambda done, total: report("training", done, total))
    return schedule


def _steps(reranker: Reranker, slates: Slates, budget: float) -> int:
    """Return how many steps the budget allows, at most three passes."""
    from isometry.training.cross_encoder import Schedule

    trial, size = copy.deepcopy(reranker), reranker.batch_size
    each = seconds_each(lambda steps: trial.train(slates, Schedule(steps=steps, batch_size=size)))
    return int(min(max(20, 3 * reranker.units(slates) // size), max(20, SHARE * budget / each)))


def _affordable(reranker: Reranker, slates: Slates, depth: int, budget: float) -> int:
    """Return how many queries the budget allows to judge, from the time that a few pairs take."""
    few = slates.pairs[: 2 * depth]
    reranker.scorer.predict(few[:2])
    begun = time.perf_counter()
    reranker.scorer.predict(few)
    each = max(1e-6, (time.perf_counter() - begun) / len(few) * depth)
    return int(min(JUDGED, max(FEWEST_JUDGED, JUDGING_SHARE * budget / each)))
