"""BEBR: learned multi-level binary codes of embeddings, compared at equal bits, on pairs, and across encoders."""

from __future__ import annotations

import csv
import gzip
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from isometry.codes import BinaryCode, Code, LowRankCode, ProductCode, RecurrentBinaryCode, ScalarCode
from isometry.codes.distances import METHODS, plane_dots
from isometry.codes.recurrent_binary import Binariser, CodeSearch, Training, train_binariser
from isometry.errors import RecipeError, SpaceMismatch
from isometry.lab import Card, Claim, Lab, Outcome, Plot
from isometry.types import Scores, unit

if TYPE_CHECKING:
    from isometry.types import FloatArray, IntArray

CARD = Card(
    slug="bebr",
    title="Binary Embedding-based Retrieval at Tencent",
    arxiv="2302.08714",
    year=2023,
    kind="system",
    summary=(
        "Turns any embedding into a few learned bits per dimension with a small residual network, compares codes by "
        "exact integer products, and trains a new encoder's codes so that they search an index of old codes. Compared "
        "at equal bits with signs, rotated signs, product and scalar quantisation. The published new encoder being "
        "unavailable, the upgrade studied is from means of input token vectors to the full model."
    ),
    mechanism=(
        "isometry.codes.recurrent_binary.transform:RecurrentBinaryCode",
        "isometry.codes.recurrent_binary.network:Binariser",
        "isometry.codes.recurrent_binary.search:CodeSearch",
        "isometry.codes.distances:plane_dots",
    ),
    parts=(
        "isometry.codes.recurrent_binary.training:train_binariser",
        "isometry.codes.recurrent_binary.losses:both_ways",
        "isometry.codes.recurrent_binary.losses:similarity_distillation",
        "isometry.codes.binary:BinaryCode",
        "isometry.codes.product:ProductCode",
        "isometry.codes.scalar:ScalarCode",
        "isometry.codes.low_rank:LowRankCode",
    ),
    needs=("documents",),
    aliases=("BEBR", "recurrent binarisation", "backward-compatible training", "emb2emb"),
    aspects={
        "task": "compressed retrieval, upgrading encoders without coding the index anew",
        "method": "residual binary codes, straight-through sign, contrastive learning, distillation",
        "data": "WordNet definitions and entries",
    },
    headline="1,024 bits find as much as 16,384-bit floats (R@1 .360 against .361, COCO image to text); hash: .348",
    claims=(
        Claim("Two bits of 384 dimensions recall 5 points more than one learned bit of 768 (distilled)",
              key="two-bits", task="WordNet glosses", metric="recall@10", baseline="learned hash, equal bits",
              margin=0.05, seeds=3),
        Claim("Two bits of 384 dimensions recall 5 points more than signs after random rotations, 768 bits",
              key="rotated-signs", task="WordNet glosses", metric="recall@10", baseline="rotated signs, equal bits",
              margin=0.05, seeds=3),
        Claim("Distillation costs at most half a point against the untrained rotation network",
              key="distilled", task="WordNet glosses", metric="recall@10", baseline="untrained", margin=-0.005,
              seeds=3),
        Claim("Trained on pairs, recurrent codes find at least as much as a hash of equal bits",
              key="pairs-hash", task="definition to entry", metric="R@1", baseline="learned hash, equal bits", seeds=3),
        Claim("Trained on pairs, recurrent codes find at most a point more than the float head",
              key="pairs-float", task="definition to entry", metric="R@1", baseline="float head", sign="<",
              margin=-0.01, seeds=3),
        Claim("Backward-compatible codes of a new encoder find more in the old index than codes trained alone",
              key="compatible", task="definition to entry", metric="R@10", baseline="trained alone", seeds=3),
        Claim("New queries find at least 0.9 of what old queries find in the old index",
              key="old-index", task="definition to entry", metric="R@10", baseline="0.9 x old queries", seeds=3),
        Claim("Compatibility costs at most two points in the new index",
              key="new-index", task="definition to entry", metric="R@10", baseline="trained alone", margin=-0.02,
              seeds=3),
        Claim("The four distances agree to the bit", key="distances", invariant=True),
        Claim("A code takes m (u + 1) / 8 + 4 bytes", key="memory", invariant=True),
        Claim("A code does not depend on the batch it is made in", key="batch", invariant=True),
        Claim("Codes of an encoder that is not declared compatible are refused", key="refused", invariant=True),
    ),
    presets={
        "smoke": {"seeds": 1, "train": 400, "base": 300, "queries": 40, "epochs": 1, "budgets": [0.5, 1, 2],
                  "pairs": 160, "held_out": 60, "pair_epochs": 1, "pair_bits": 64, "hidden": 64, "blocks": 1,
                  "upgrade_epochs": 2, "iterations": 2},
        "laptop": {"seeds": 3, "train": 30000, "base": 30000, "queries": 500, "epochs": 2, "budgets": [0.5, 1, 2, 4],
                   "pairs": 5000, "held_out": 1500, "pair_epochs": 6, "pair_bits": 512, "hidden": 512, "blocks": 1,
                   "upgrade_epochs": 6, "iterations": 8},
        "paper": {"seeds": 3, "train": 110000, "base": 1000000, "queries": 5000, "epochs": 10,
                  "budgets": [0.5, 1, 2, 4], "pairs": 110000, "held_out": 5000, "pair_epochs": 10, "pair_bits": 1024,
                  "hidden": 2048, "blocks": 3, "upgrade_epochs": 10, "iterations": 20},
    },
)  # fmt: skip


def run(lab: Lab) -> Outcome:
    """Compare codes at equal bits; on the built-in data also pairs and an encoder upgrade."""
    outcome = Outcome()
    code = _equal_bits(lab, outcome, *_glosses(lab))
    if lab.user_data is None:
        definitions, entries = _entries(lab)
        x, y = lab.embed(definitions), lab.embed(entries)
        _pairs(lab, outcome, x, y)
        _upgrade(lab, outcome, (x, y), (_token_means(lab, definitions), _token_means(lab, entries)))
    outcome.fact("bytes of a code, and bytes kept once", [code.code_bytes, code.overhead_bytes])
    return outcome


def _synsets(lab: Lab) -> list[dict[str, str]]:
    with gzip.open(lab.path("wordnet") / "synsets.tsv.gz", "rt", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def _glosses(lab: Lab) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Embedded texts: to learn from, to search, and to search with."""
    sizes = [lab.config[name] for name in ("queries", "base", "train")]
    found = (row["definition"] for row in _synsets(lab)) if lab.user_data is None else (
        document.content for document in lab.documents(""))  # fmt: skip
    texts = sorted(set(found))
    chosen = np.random.default_rng(0).permutation(len(texts))[: sum(sizes)]
    if len(chosen) < 300:
        raise RecipeError(f"Codes are learned from 300 different texts at least; there are {len(chosen)}.")
    x = lab.embed([texts[i] for i in chosen])
    cuts = np.cumsum(np.array(sizes[:2]) / sum(sizes) * len(x)).astype(int)
    queries, base, train = np.split(x, cuts)
    return (x[cuts[0] :] if len(train) < 256 else train), base, queries


def _recall(best: IntArray, scores: FloatArray, k: int = 10) -> FloatArray:
    """Share of the exact top k found, per query."""
    found = np.argpartition(-scores, k, axis=1)[:, :k]
    return np.asarray((found[:, :, None] == best[:, None, :]).any(axis=2).mean(axis=1), np.float32)


def _scores(task: str, system: str, metric: str, runs: Iterable[Any]) -> Scores:
    """Per-unit means over seeds."""
    mean = np.mean(np.stack([np.asarray(r, np.float64) for r in runs]), axis=0)
    return Scores.of(task, system, {metric: {f"q{i}": float(v) for i, v in enumerate(mean)}})


class _Bench:
    """Recall of codes on one set: symmetric by default, cosine ranking."""

    def __init__(self, train: FloatArray, base: FloatArray, queries: FloatArray) -> None:
        self.train, self.base, self.queries = train, base, queries
        self.best = np.argpartition(-(queries @ base.T), 10, axis=1)[:, :10]

    def fit(self, code: Code, *, rows: int | None = None) -> FloatArray:
        """Fit on the first ``rows`` training vectors and return the recall per query, both sides coded."""
        base, queries = code.fit(self.train[:rows]).transform(self.base), code.transform(self.queries)
        scores = code.score_codes(queries, base)
        return _recall(
            self.best, scores if isinstance(code, RecurrentBinaryCode) else scores / self._lengths(code, base)
        )

    def asymmetric(self, code: Code) -> FloatArray:
        """Recall per query of float queries, by a fitted code."""
        base = code.transform(self.base)
        return _recall(self.best, code.score(self.queries, base) / self._lengths(code, base))

    def _lengths(self, code: Code, base: Any) -> FloatArray:
        return np.maximum(code.norms(base), np.float32(1e-12))


def _equal_bits(lab: Lab, outcome: Outcome, train: FloatArray, base: FloatArray, queries: FloatArray) -> Code:
    bench, dim = _Bench(train, base, queries), train.shape[1]
    outcome.fact("vectors", f"{len(train)} to learn from, {len(base)} searched, {len(queries)} queries, {dim} wide")
    learned: dict[str, list[FloatArray]] = {"u = 1": [], "untrained": [], "u = 0": [], "signs": []}
    code = RecurrentBinaryCode(dim, 1)
    for seed in lab.seeds:
        settings = Training(epochs=lab.config["epochs"])
        code = RecurrentBinaryCode(dim, 1, training=settings, seed=seed)
        learned["u = 1"].append(bench.fit(code))
        learned["untrained"].append(bench.fit(_untrained(dim, seed)))
        learned["u = 0"].append(bench.fit(RecurrentBinaryCode(2 * dim, 0, training=settings, seed=seed)))
        learned["signs"].append(bench.fit(BinaryCode(2 * dim, rotation="random", seed=seed)))
        lab.progress("codes", seed + 1, len(lab.seeds))
    named = {name: _scores("WordNet glosses", name, "recall@10", runs) for name, runs in learned.items()}
    for key, baseline in (("two-bits", "u = 0"), ("rotated-signs", "signs"), ("distilled", "untrained")):
        outcome.compare(key, named["u = 1"], named[baseline])
    outcome.fact(f"recall@10 at {2 * dim} bits, mean of seeds",
                 {name: round(scores.mean("recall@10"), 4) for name, scores in named.items()})  # fmt: skip
    _curves(lab, outcome, bench, float(named["u = 1"].mean("recall@10")))
    _invariants(outcome, bench, code)
    return code


def _untrained(bits: int, seed: int = 0) -> RecurrentBinaryCode:
    return RecurrentBinaryCode(bits, 1, training=Training(epochs=0), seed=seed)


def _curves(lab: Lab, outcome: Outcome, bench: _Bench, learned: float) -> None:
    """Recall by bits of every code; both sides coded, and for product codes also float queries."""
    dim = bench.train.shape[1]
    series: dict[str, list[tuple[int, float]]] = {}

    def add(name: str, code: Code, bits: int, rows: int | None = None) -> None:
        series.setdefault(name, []).append((bits, round(float(bench.fit(code, rows=rows).mean()), 4)))
        if isinstance(code, ProductCode):
            one = round(float(bench.asymmetric(code).mean()), 4)
            series.setdefault(f"{name}, float queries", []).append((bits, one))

    for share in lab.config["budgets"]:
        bits = int(share * dim)
        add("rotated signs", BinaryCode(bits, rotation="random"), bits)
        if dim % (bits // 8) == 0:
            add("product (PQ)", ProductCode(bits // 8, iterations=lab.config["iterations"]), bits)
        if share in (1, 2, 4):
            add("scalar", ScalarCode(int(share)), bits)
        if bits // 4 <= dim:
            add("SVD + 4-bit scalar", LowRankCode(bits // 4, ScalarCode(4)), bits)
        if bits % 16 == 0:
            add("BEBR untrained", _untrained(bits // 2), bits)
        lab.progress("bits", bits, None)
    add("signs, centred", BinaryCode(), dim)
    add("signs after ITQ", BinaryCode(rotation="itq"), dim, 8000)
    short = RecurrentBinaryCode(dim // 2, 1, training=Training(epochs=lab.config["epochs"]))
    add("BEBR distilled", short, dim)
    series["BEBR distilled"].append((2 * dim, round(learned, 4)))
    outcome.fact("recall@10 by bits", {name: dict(points) for name, points in series.items()})
    title = "Recall of the exact top 10 by cosine; both sides coded unless said"
    outcome.plot("recall-by-bits", Plot(title, "bits of a code", "recall@10", series, log_x=True))


def _invariants(outcome: Outcome, bench: _Bench, code: RecurrentBinaryCode) -> None:
    base, queries = code.transform(bench.base), code.transform(bench.queries)
    seconds, dots = {}, []
    for method in METHODS:
        plane_dots(queries[:2, :-4], base[:2, :-4], code.rounds, method)  # compiled before it is timed
        started = time.process_time()
        dots.append(plane_dots(queries[:50, :-4], base[:, :-4], code.rounds, method))
        seconds[method] = round((time.process_time() - started) / 50 / len(base) * 1e9, 1)
    outcome.invariant(
        "distances", all(np.array_equal(dots[0], d) for d in dots[1:]), f"{len(METHODS)} ways, {dots[0].size} pairs"
    )
    outcome.fact("nanoseconds of a distance by method", seconds)
    expected = code.bits * (code.rounds + 1) // 8 + 4
    outcome.invariant("memory", base.nbytes == len(base) * expected, f"{base.nbytes / len(base):g} bytes a vector")
    order = np.random.default_rng(0).permutation(len(bench.queries))
    alone = np.vstack([code.transform(bench.queries[i : i + 1]) for i in order])
    outcome.invariant("batch", bool((alone == queries[order]).all()), f"{len(order)} queries one by one and together")
    other = _untrained(code.bits, seed=99).fit(bench.train)
    try:
        CodeSearch().add(code, base).search(other, other.transform(bench.queries), 1)
        refused = "they were searched"
    except SpaceMismatch as error:
        refused = ""
        detail = str(error)
    outcome.invariant("refused", not refused, refused or detail)
    index = CodeSearch().add(code, base).build_lists(code, max(4, len(base) // 300), iterations=4)
    outcome.fact("recall@10, two stages and lists", _stages(bench, code, index, queries))


def _stages(bench: _Bench, code: RecurrentBinaryCode, index: CodeSearch, queries: Any) -> Mapping[str, float]:
    """Recall after a float rerank, and of inverted lists."""
    ways: dict[str, dict[str, Any]] = {
        "codes": {}, "codes, 50 reranked by floats": {"rerank": (bench.queries, bench.base), "shortlist": 50},
        "a tenth of the lists": {"probes": max(1, len(bench.base) // 3000)},
    }  # fmt: skip
    found = {name: index.search(code, queries, 10, **options)[0] for name, options in ways.items()}
    return {
        name: round(float((rows[:, :, None] == bench.best[:, None]).any(axis=2).mean()), 4)
        for name, rows in found.items()
    }


def _entries(lab: Lab) -> tuple[list[str], list[str]]:
    """Definitions and the words they define, both distinct, in random order."""
    pairs: dict[str, str] = {}
    for row in _synsets(lab):
        pairs.setdefault(row["lemmas"].replace("|", ", "), row["definition"])
    unique = {definition: entry for entry, definition in pairs.items()}
    order = np.random.default_rng(1).permutation(len(unique))[: lab.config["pairs"] + lab.config["held_out"]]
    definitions = sorted(unique)
    return [definitions[i] for i in order], [unique[definitions[i]] for i in order]


def _found(q: FloatArray, d: FloatArray, k: int) -> FloatArray:
    """Whether row i of d is among the k nearest of row i of q by cosine, per row."""
    q, d = unit(q), unit(d)
    scores = q @ d.T
    better = (scores > scores.diagonal()[:, None]).sum(axis=1)
    ties = (scores == scores.diagonal()[:, None]).sum(axis=1) - 1
    return np.asarray(np.clip((k - better) / (ties + 1), 0, 1), np.float32)  # expected over the order of ties


def _pairs(lab: Lab, outcome: Outcome, x: FloatArray, y: FloatArray) -> None:
    """The paper's own task: heads trained on pairs by InfoNCE, judged on held-out pairs at equal bits."""
    import torch

    n, bits, dim = lab.config["pairs"], lab.config["pair_bits"], x.shape[1]
    heads = {"BEBR": (bits // 2, 1, True), "hash": (bits, 0, True), "float head": (bits // 2, 0, False)}
    found: dict[str, list[FloatArray]] = {name: [] for name in heads}
    for seed in lab.seeds:
        for name, (m, rounds, binary) in heads.items():
            network = Binariser(dim, m, rounds, hidden=lab.config["hidden"], blocks=lab.config["blocks"], init="paper",
                                binary=binary, seed=seed)  # fmt: skip
            train_binariser(network, x[:n], y[:n], settings=Training.paper(lab.config["pair_epochs"]), seed=seed)
            with torch.inference_mode():
                q, d = (network(torch.from_numpy(side[n:])).numpy() for side in (x, y))
            found[name].append(_found(q, d, 1))
        lab.progress("pairs", seed + 1, len(lab.seeds))
    named = {name: _scores("definition to entry", name, "R@1", runs) for name, runs in found.items()}
    outcome.compare("pairs-hash", named["BEBR"], named["hash"])
    outcome.compare("pairs-float", named["BEBR"], named["float head"])
    table = {name: round(scores.mean("R@1"), 4) for name, scores in named.items()}
    table["vectors as they are"] = round(float(_found(x[n:], y[n:], 1).mean()), 4)
    outcome.fact(f"R@1 of {len(x) - n} held-out pairs, {bits} bits", table)
    outcome.plot("pairs", Plot(f"Held-out definitions find their entry, {bits} bits", "head", "R@1",
                               {"R@1": list(table.items())}, kind="bar"))  # fmt: skip


def _token_means(lab: Lab, texts: list[str]) -> FloatArray:
    """The older encoder of the upgrade: mean of the model's input token vectors, centred."""
    model = lab.encoder().model
    try:
        table = model[0].auto_model.get_input_embeddings().weight.detach().numpy()
        ids = model.tokenizer(texts, add_special_tokens=False, truncation=True, max_length=64)["input_ids"]
    except AttributeError as error:
        raise RecipeError("The upgrade needs a transformer with input token vectors; use model 'minilm'.") from error
    means = np.stack([table[row].mean(axis=0) if row else np.zeros(table.shape[1]) for row in ids])
    means = means - table.mean(axis=0)
    return np.asarray(means / np.linalg.norm(means, axis=1, keepdims=True), np.float32)


def _upgrade(
    lab: Lab, outcome: Outcome, new: tuple[FloatArray, FloatArray], old: tuple[FloatArray, FloatArray]
) -> None:
    """Index of an old encoder's codes, queries of a new one: with and without backward-compatible training."""
    n, bits = lab.config["pairs"], new[0].shape[1] // 2
    settings = Training("nce", lab.config["upgrade_epochs"], 256, lr=1e-3)
    found: dict[str, list[FloatArray]] = {}
    for seed in lab.seeds:
        before, alone, after = (
            RecurrentBinaryCode(bits, 1, hidden=new[0].shape[1], training=settings, seed=10 * seed + i)
            for i in range(3)
        )
        before.fit_pairs(old[0][:n], old[1][:n])
        alone.fit_pairs(new[0][:n], new[1][:n])
        after.fit_pairs(new[0][:n], new[1][:n], old=before, old_documents=old[1][:n])
        codes = {"old": (before, old), "alone": (alone, new), "compatible": (after, new)}
        values = {
            name: [code.values(code.transform(side[n:])) for side in sides] for name, (code, sides) in codes.items()
        }
        for query, index in (("old", "old"), ("alone", "old"), ("compatible", "old"), ("alone", "alone"),
                             ("compatible", "compatible")):  # fmt: skip
            found.setdefault(f"{query} queries, {index} index", []).append(
                _found(values[query][0], values[index][1], 10)
            )
        lab.progress("upgrade", seed + 1, len(lab.seeds))
    named = {name: _scores("definition to entry", name, "R@10", runs) for name, runs in found.items()}
    reached, reference = named["compatible queries, old index"], found["old queries, old index"]
    outcome.compare("compatible", reached, named["alone queries, old index"])
    outcome.compare(
        "old-index", reached, _scores("definition to entry", "0.9 x old", "R@10", [0.9 * r for r in reference])
    )
    outcome.compare("new-index", named["compatible queries, compatible index"], named["alone queries, alone index"])
    table = {name: round(scores.mean("R@10"), 4) for name, scores in named.items()}
    outcome.fact("R@10 of held-out pairs in an upgrade", table | {"chance": round(10 / (len(new[0]) - n), 4)})
    outcome.plot("upgrade", Plot("Upgrading an encoder: who finds what in whose index", "queries, index", "R@10",
                                 {"R@10": list(table.items())}, kind="bar"))  # fmt: skip
