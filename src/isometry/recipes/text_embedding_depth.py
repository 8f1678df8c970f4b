"""TTE depth: order texts from the centre of a corpus outwards, and test whether two corpora differ.

Examples are chosen for a classifier by nearest prototypes, which sees nothing else, in place of a language model. Deep
examples win where classes are broad (topics, news); where they are narrow, as intents are, random ones do slightly
better.
"""

from __future__ import annotations

import csv
import gzip
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy.spatial.distance import cdist
from scipy.stats import ortho_group
from sklearn.metrics import roc_auc_score

from isometry.diagnostics import cosine_depth, depth_test, outlier_scores, select_deepest
from isometry.errors import RecipeError
from isometry.lab import Card, Claim, Lab, Outcome
from isometry.types import FloatArray, IntArray, Scores

CARD = Card(
    slug="text-embedding-depth",
    title="Statistical Depth for Ranking and Characterizing Transformer-Based Text Embeddings",
    arxiv="2310.15010",
    year=2023,
    kind="system",
    summary=(
        "Gives every text of a corpus a depth: how close its embedding lies to all the others on the unit sphere. Deep "
        "texts are typical and make good examples, shallow ones are outliers. A rank-sum test on depths taken with "
        "respect to one corpus says whether another one was drawn from the same distribution."
    ),
    mechanism=(
        "isometry.diagnostics.depth:cosine_depth",
        "isometry.diagnostics.rank_sum:depth_test",
        "isometry.diagnostics.depth:select_deepest",
    ),
    parts=(
        "isometry.diagnostics.depth:angular_depth",
        "isometry.diagnostics.depth:cluster_depth",
        "isometry.diagnostics.rank_sum:compare_corpora",
        "isometry.diagnostics.energy:energy_test",
        "isometry.diagnostics.outliers:mean_knn_distance",
    ),
    needs=("labelled",),
    aliases=("TTE depth", "statistical depth", "corpus drift test"),
    aspects={
        "task": "outliers, corpus comparison, example selection",
        "method": "angular distance-based depth, Wilcoxon rank-sum test",
        "data": "texts in one or two corpora, or by class",
    },
    headline="all five synthetic corpora differ from the human ones; deep examples make better prompts in most tasks",
    claims=(
        Claim(
            "With a tenth of another topic mixed in, Q is lower than without",
            key="q-falls-10",
            task="wordnet",
            metric="q",
            baseline="no mixture",
            sign="<",
        ),
        Claim(
            "With three tenths mixed in, Q is lower than with one",
            key="q-falls-30",
            task="wordnet",
            metric="q",
            baseline="a tenth",
            sign="<",
        ),
        Claim(
            "With the other topic alone, Q is lower than with three tenths",
            key="q-falls-100",
            task="wordnet",
            metric="q",
            baseline="three tenths",
            sign="<",
        ),
        Claim(
            "Another topic lies outside: Q below 0.1",
            key="separates",
            task="wordnet",
            metric="q",
            baseline="0.1",
            sign="<",
        ),
        Claim(
            "and the difference is beyond doubt: p below 1e-20",
            key="significant",
            task="wordnet",
            metric="log10 p",
            baseline="-20",
            sign="<",
        ),
        Claim(
            "Two halves of one topic are told apart at the 5 % level in at most 8 % of draws",
            key="level",
            task="wordnet",
            metric="rejected",
            baseline="0.08",
            sign="<",
        ),
        Claim(
            "Low depth finds texts of another topic planted in a corpus: AUC above 0.95",
            key="finds-planted",
            task="wordnet",
            metric="auc",
            baseline="0.95",
        ),
        Claim(
            "and is no worse at it than the distance to the nearest neighbours, within 0.01",
            key="finds-like-knn",
            task="wordnet",
            metric="auc",
            baseline="mean distance to 10 neighbours",
            margin=-0.01,
        ),
        Claim(
            "Prototypes of the five deepest texts of each topic classify better than of five random ones, by 4 points",
            key="selects",
            task="wordnet",
            metric="accuracy",
            baseline="random examples",
            margin=0.04,
            seeds=10,
        ),
        Claim(
            "The same on narrow classes, intents of a bank's customers",
            key="selects-intents",
            task="cls/banking77",
            metric="accuracy",
            baseline="random examples",
            seeds=10,
        ),
        Claim(
            "The same on labelled texts (news, or yours): the deepest of each class are better prototypes than random",
            key="selects-labelled",
            task="cls/agnews",
            metric="accuracy",
            baseline="random examples",
            seeds=10,
        ),
        Claim(
            "Low depth finds texts of other classes planted in a class of labelled texts: AUC above 0.8",
            key="finds-labelled",
            task="cls/agnews",
            metric="auc",
            baseline="0.8",
        ),
        Claim("The closed form equals the mean of all cosine distances", key="closed-form", invariant=True),
        Claim("Rotating all vectors leaves depths unchanged", key="rotation", invariant=True),
        Claim("The depth of a new text does not depend on the texts beside it", key="roles", invariant=True),
    ),
    presets={
        "smoke": {
            "seeds": 3, "topics": 4, "per_topic": 50, "main": 180, "other": 85, "corpus": 80, "draws": 40,
            "level_draws": 60, "classes": 6, "per_class": 25, "planted_draws": 8, "random_draws": 10,
        },
        "laptop": {
            "seeds": 10, "topics": 16, "per_topic": 400, "main": 2000, "other": 1000, "corpus": 200, "draws": 40,
            "level_draws": 600, "classes": 40, "per_class": 150, "planted_draws": 20, "random_draws": 20,
        },
        "paper": {
            "seeds": 20, "topics": 16, "per_topic": 650, "main": 4000, "other": 4000, "corpus": 500, "draws": 100,
            "level_draws": 2000, "classes": 200, "per_class": 1000, "planted_draws": 50, "random_draws": 50,
        },
    },
)  # fmt: skip

# A topic is everything below one synset and below none of the others on the way; the first two are the sweep's.
_TOPICS = {
    "n00015388": "animal",
    "n00021939": "artifact",
    "n00007846": "person",
    "n00017222": "plant",
    "n00030358": "act",
    "n00033020": "communication",
    "n00023271": "cognition",
    "n00027167": "location",
    "n00024720": "state",
    "n00019613": "substance",
    "n00024264": "attribute",
    "n05220461": "body part",
    "n00021265": "food",
    "n00029378": "event",
    "n00032613": "possession",
    "n15113229": "time period",
}
_EXAMPLES = 5  # chosen per class
_PLANTED = 0.05  # share of a corpus that belongs elsewhere


def run(lab: Lab) -> Outcome:
    """Sweep mixtures of two topics, plant outliers, select prototypes; then the last two on labelled texts.

    On the user's own labelled data the last part runs alone.
    """
    outcome = Outcome()
    if lab.user_data is None:
        _topics(lab, _glosses(lab.path("wordnet")), outcome)
        _labelled(lab, "cls/banking77", "selects-intents", outcome)
    depth, knn = _labelled(lab, "cls/agnews", "selects-labelled", outcome)
    outcome.compare("finds-labelled", depth, 0.8)
    outcome.fact("AUC of planted texts in a class: depth, neighbours", [round(s.mean("auc"), 4) for s in (depth, knn)])
    return outcome


def _topics(lab: Lab, glosses: Mapping[str, Sequence[str]], outcome: Outcome) -> None:
    config, rng = lab.config, np.random.default_rng(0)
    wanted = dict.fromkeys(list(_TOPICS.values())[: config["topics"]], config["per_topic"])
    wanted |= {"animal": config["main"], "artifact": config["other"]}
    texts = {
        topic: [glosses[topic][i] for i in _draw(len(glosses[topic]), count, rng)] for topic, count in wanted.items()
    }
    vectors = lab.embed([text for topic in texts.values() for text in topic])
    ends = np.cumsum([len(topic) for topic in texts.values()])
    groups = dict(zip(texts, np.split(vectors, ends[:-1]), strict=True))
    main, other = groups["animal"], groups["artifact"]
    _sweep(lab, main, other, outcome)
    _invariants(main[: len(main) // 2], main[len(main) // 2 : len(main) // 2 * 2], outcome)
    found = [_auc_of_planted(main, other, 1000, np.random.default_rng(i)) for i in range(config["planted_draws"])]
    by_depth, by_distance = zip(*found, strict=True)
    depth = _scores("wordnet", "depth", "auc", by_depth)
    outcome.compare("finds-planted", depth, 0.95)
    outcome.compare("finds-like-knn", depth, _scores("wordnet", "neighbours", "auc", by_distance))
    pool = np.concatenate([group[: config["per_topic"]] for group in groups.values()])
    labels = np.repeat(np.arange(len(groups)), [min(len(g), config["per_topic"]) for g in groups.values()])
    _select(lab, pool, labels, "selects", "wordnet", outcome)


def _sweep(lab: Lab, main: FloatArray, other: FloatArray, outcome: Outcome) -> None:
    """Q of a corpus of one topic against a second corpus with a growing share of another topic."""
    size = lab.config["corpus"]
    shares = (0.0, 0.1, 0.3, 1.0)
    q, log_p, rejected = (defaultdict[float, list[float]](list) for _ in range(3))
    draws = lab.config["level_draws"]
    for draw in range(draws):
        rng = np.random.default_rng(draw)
        rows, strange = rng.permutation(len(main)), rng.permutation(len(other))
        for share in shares if draw < lab.config["draws"] else shares[:1]:
            mixed = round(share * size)
            second = np.concatenate([main[rows[size : 2 * size - mixed]], other[strange[:mixed]]])
            test = depth_test(main[rows[:size]], second, resamples=1, dedup_threshold=None, seed=draw)
            q[share].append(test.q)
            log_p[share].append(float(np.log10(max(test.p, 1e-300))))
            rejected[share].append(float(test.p <= 0.05))
        lab.progress("comparing corpora", draw + 1, draws)
    count = lab.config["draws"]
    by_share = {share: _scores("wordnet", f"{share:.0%} mixed in", "q", q[share][:count]) for share in shares}
    for share, before in ((0.1, 0.0), (0.3, 0.1), (1.0, 0.3)):
        outcome.compare(f"q-falls-{share * 100:.0f}", by_share[share], by_share[before])
    outcome.compare("separates", by_share[1.0], 0.1)
    outcome.compare("significant", _scores("wordnet", "depth test", "log10 p", log_p[1.0]), -20.0)
    outcome.compare("level", _scores("wordnet", "depth test", "rejected", rejected[0.0]), 0.08)
    for share in shares:
        outcome.fact(f"mean Q, {share:.0%} mixed in", round(float(np.mean(q[share])), 4))
        outcome.fact(f"median log10 p, {share:.0%} mixed in", round(float(np.median(log_p[share])), 2))
        outcome.fact(f"rejected at 5 %, {share:.0%} mixed in", round(float(np.mean(rejected[share])), 4))


def _invariants(f: FloatArray, g: FloatArray, outcome: Outcome) -> None:
    f, g = f[:300], g[:300]
    apart = cdist(f.astype(np.float64), f.astype(np.float64), "cosine")
    np.fill_diagonal(apart, 0.0)
    inside, outside = cosine_depth(f, f, in_sample=True), cosine_depth(g, f, in_sample=False)
    gap = float(np.abs(inside - (2.0 - apart.sum(axis=1) / (len(f) - 1))).max())
    outcome.invariant("closed-form", gap < 1e-6, f"largest difference {gap:.1e}")
    turn = ortho_group.rvs(f.shape[1], random_state=0)
    gap = float(np.abs(cosine_depth(g @ turn, f @ turn, in_sample=False) - outside).max())
    outcome.invariant("rotation", gap < 1e-6, f"largest difference {gap:.1e}")
    alone = np.concatenate([cosine_depth(row[None], f, in_sample=False) for row in g])
    gap = float(np.abs(alone - outside).max())
    outcome.invariant("roles", gap < 1e-6 and len(f) == len(g), f"largest difference {gap:.1e} with |F| = |G|")


def _labelled(lab: Lab, name: str, selects: str, outcome: Outcome) -> tuple[Scores, Scores]:
    """Select prototypes on a labelled set, and return the AUCs of both outlier scores for texts of other classes."""
    config, rng = lab.config, np.random.default_rng(1)
    data = lab.labelled(name, split="train")
    by_label: dict[str, list[int]] = defaultdict(list)
    for row, label in enumerate(data.labels):
        by_label[label].append(row)
    usable = [rows for _, rows in sorted(by_label.items()) if len(rows) >= 2 * _EXAMPLES]
    if len(usable) < 2:
        raise RecipeError(
            f"Depth by class needs two classes of {2 * _EXAMPLES} texts or more; {data.name or 'the data'} has "
            f"{len(usable)}."
        )
    kept = [usable[i] for i in _draw(len(usable), config["classes"], rng)]
    chosen = [[rows[i] for i in _draw(len(rows), config["per_class"], rng)] for rows in kept]
    vectors = lab.embed([data.texts[row] for rows in chosen for row in rows])
    labels = np.repeat(np.arange(len(chosen)), [len(rows) for rows in chosen])
    _select(lab, vectors, labels, selects, name, outcome)
    found = []
    for draw in range(max(len(chosen), config["planted_draws"])):
        inside = labels == draw % len(chosen)
        found.append(_auc_of_planted(vectors[inside], vectors[~inside], int(inside.sum()), np.random.default_rng(draw)))
    by_depth, by_distance = zip(*found, strict=True)
    return _scores(name, "depth", "auc", by_depth), _scores(name, "neighbours", "auc", by_distance)


def _auc_of_planted(main: FloatArray, other: FloatArray, size: int, rng: np.random.Generator) -> tuple[float, float]:
    """AUC with which two outlier scores find a twentieth of texts from elsewhere, in a corpus of up to ``size``."""
    own = min(len(main), size - round(_PLANTED * size))
    planted = min(len(other), max(1, round(own * _PLANTED / (1.0 - _PLANTED))))
    corpus = np.concatenate([main[_draw(len(main), own, rng)], other[_draw(len(other), planted, rng)]])
    strange = np.arange(len(corpus)) >= own
    by_depth = outlier_scores(corpus, "depth")
    by_distance = outlier_scores(corpus, "knn", k=min(10, len(corpus) - 1))
    return float(roc_auc_score(strange, by_depth)), float(roc_auc_score(strange, by_distance))


def _select(lab: Lab, vectors: FloatArray, labels: IntArray, key: str, task: str, outcome: Outcome) -> None:
    """Accuracy of nearest prototypes of the deepest and of random examples, over splits into pool and test."""
    deepest, random, best = [], [], 0
    for seed in lab.seeds:
        rng = np.random.default_rng(seed)
        in_pool = np.zeros(len(labels), bool)
        for label in np.unique(labels):
            rows = rng.permutation(np.flatnonzero(labels == label))
            in_pool[rows[: round(0.6 * len(rows))]] = True
        pool, test = np.flatnonzero(in_pool), np.flatnonzero(~in_pool)
        picks = select_deepest(vectors[pool], labels[pool], _EXAMPLES)
        deepest.append(_accuracy(vectors, labels, [pool[rows] for rows in picks.values()], test))
        drawn, members = [], [pool[labels[pool] == label] for label in picks]
        for _ in range(lab.config["random_draws"]):
            examples = [rows[_draw(len(rows), _EXAMPLES, rng)] for rows in members]
            drawn.append(_accuracy(vectors, labels, examples, test))
        random.append(float(np.mean(drawn)))
        best += deepest[-1] > max(drawn)
    outcome.compare(key, _scores(task, "deepest", "accuracy", deepest), _scores(task, "random", "accuracy", random))
    outcome.fact(f"{key}: splits in which the deepest beat every random draw", f"{best} of {len(lab.seeds)}")


def _accuracy(vectors: FloatArray, labels: IntArray, examples: Sequence[IntArray], test: IntArray) -> float:
    prototypes = np.stack([vectors[rows].mean(axis=0) for rows in examples])
    prototypes /= np.linalg.norm(prototypes, axis=1, keepdims=True)
    classes = np.asarray([labels[rows[0]] for rows in examples])
    return float((classes[(vectors[test] @ prototypes.T).argmax(axis=1)] == labels[test]).mean())


def _draw(available: int, count: int, rng: np.random.Generator) -> IntArray:
    """Positions of up to ``count`` of the items available, without repetition, in random order."""
    return rng.permutation(available)[:count].astype(np.int64)


def _scores(task: str, system: str, metric: str, values: Sequence[float]) -> Scores:
    return Scores.of(task, system, {metric: {f"{i:04d}": float(value) for i, value in enumerate(values)}})


def _glosses(folder: Path) -> dict[str, list[str]]:
    """Definitions of the nouns of every topic: those whose nearest ancestor among the topics' synsets it is."""
    below = defaultdict(list)
    for row in _rows(folder / "relations.tsv.gz"):
        if row["relation"] in ("hypernym", "instance_hypernym"):
            below[row["target"]].append(row["id"])
    topic_of, queue = dict(_TOPICS), deque(_TOPICS)
    while queue:
        parent = queue.popleft()
        for child in below[parent]:
            if child not in topic_of:
                topic_of[child] = topic_of[parent]
                queue.append(child)
    glosses: dict[str, list[str]] = {topic: [] for topic in _TOPICS.values()}
    for row in _rows(folder / "synsets.tsv.gz"):
        if row["id"] in topic_of and row["definition"]:
            glosses[topic_of[row["id"]]].append(row["definition"])
    return glosses


def _rows(path: Path) -> Iterator[dict[str, str]]:
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
