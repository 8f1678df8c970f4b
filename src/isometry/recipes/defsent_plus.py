"""DefSent+: an encoder learns to map a definition onto the vector of what it defines.

The vectors of entries are means of the encoder's own vectors of their definitions, so phrases can be entries and no
label is needed but a dictionary. Held-out definitions come from another dictionary than those beside them: Webster's of
1913 where an entry's vector is made of WordNet's.

The laptop's encoder is a small BERT after about a thousand steps of masked language modelling on definitions and
encyclopedia sentences. Like RoBERTa it was never given a pooler, so training begins with that of its prediction head.
Every system takes the learning rate that does best on the development pairs. Beside it a sentence-tuned encoder is
trained on as well, where nothing is expected to be gained.
"""

from __future__ import annotations

import gzip
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from isometry.data import Dictionary, read_dictionary
from isometry.diagnostics import mean_cosine, partition_isotropy
from isometry.errors import RecipeError
from isometry.lab import Card, Claim, Lab, Outcome, Plot
from isometry.tasks import entry_ranks
from isometry.tasks.sts import spearman_units
from isometry.training import (
    DefinitionRun,
    DefinitionTraining,
    entry_vectors,
    prompt_vectors,
    raw_encoder,
    train_definitions,
)
from isometry.training.definitions import encode, isotropic_entries
from isometry.training.masked_language import prediction_head
from isometry.types import FloatArray, Scores

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

CARD = Card(
    slug="defsent-plus",
    title="DefSent+: Improving sentence embeddings of language models by projecting definition sentences into a "
    "quasi-isotropic or isotropic vector space of unlimited dictionary entries",
    arxiv="2405.16153",
    year=2024,
    kind="training method",
    summary=(
        "A dictionary as supervision: the vector of a definition, through a pooler, must find its entry among all "
        "entries. Entries are the mean vectors of their definitions, frozen, instead of the model's token embeddings, "
        "so phrases count too; independent components make them isotropic. In every round a better encoder makes the "
        "entries, and the starting encoder is trained anew."
    ),
    mechanism=(
        "isometry.training.definitions:train_definitions",
        "isometry.objectives.definitions:entry_cross_entropy",
        "isometry.training.definitions:entry_vectors",
    ),
    parts=(
        "isometry.data.dictionaries:Dictionary",
        "isometry.spaces.whitening:ICA",
        "isometry.tasks.reverse_dictionary:entry_ranks",
        "isometry.training.definitions:prompt_vectors",
        "isometry.training.masked_language:raw_encoder",
        "isometry.diagnostics.isotropy:partition_isotropy",
    ),
    needs=("pairs",),
    aliases=("DefSent", "definition sentences", "reverse dictionary", "progressive separate training", "ICA targets"),
    aspects={"task": "sentence similarity", "method": "classification over entries", "data": "dictionaries"},
    headline="Without manual labels, averages over seven STS sets in the low eighties when it continues SimCSE models",
    claims=(
        Claim("means of definitions are more isotropic targets than token embeddings",
              key="definitions-isotropic", task="entries", metric="mean cosine", baseline="token embeddings", sign="<"),
        Claim("independent components are more isotropic targets than means of definitions",
              key="ica-isotropic", task="entries", metric="mean cosine", baseline="means of definitions", sign="<"),
        Claim("trained on definitions, a raw language model is better at sentence similarity",
              key="beats-raw", task="sts/stsb", metric="spearman", baseline="raw", seeds=5),
        Claim("and better than trained towards token embeddings (DefSent)",
              key="beats-defsent", task="sts/stsb", metric="spearman", baseline="DefSent", seeds=5),
        Claim("isotropic targets are no worse, within 0.01",
              key="ica-no-worse", task="sts/stsb", metric="spearman", baseline="DefSent+", margin=-0.01, seeds=5),
        Claim("unseen definitions find their entries earlier than by the starting encoder's cosine",
              key="reverse-dictionary", task="entries", metric="log2 rank", baseline="raw, cosine", sign="<", seeds=5),
        Claim("independent components have unit variance and no correlation", key="ica-white", invariant=True),
        Claim("an entry with one definition has that definition's vector", key="single-definition", invariant=True),
    ),
    presets={
        "smoke": {"seeds": 2, "steps": 5, "batch": 16, "rates": (1e-4, 5e-4), "entries": 300, "held_out": 60,
                  "pairs": 100, "text": 100, "mlm_steps": 4, "vocab": 1500, "dim": 32, "layers": 1, "rounds": 1,
                  "sampled": 0, "targets": None, "activation": "gelu", "backbone": "", "tuned": (40, 2)},
        "laptop": {"seeds": 5, "steps": 300, "batch": 32, "rates": (1e-4, 5e-4), "entries": 6400, "held_out": 500,
                   "pairs": 0, "text": 15000, "mlm_steps": 900, "vocab": 6000, "dim": 128, "layers": 2, "rounds": 1,
                   "sampled": 0, "targets": None, "activation": "gelu", "backbone": "", "tuned": (600, 40)},
        "paper": {"seeds": 5, "steps": 15000, "batch": 32, "rates": ((2e-5, 5e-6),), "entries": 0, "held_out": 5000,
                  "pairs": 0, "rounds": 3, "sampled": 20000, "targets": "cls", "activation": "tanh",
                  "backbone": "bert-base-uncased", "tuned": (20000, 500)},
    },
)  # fmt: skip

WORDS = (3, 25)  # shortest and longest definition taken


@dataclass(frozen=True, eq=False)
class Study:
    """A dictionary to learn, definitions held out of it, and an encoder to begin with."""

    dictionary: Dictionary
    asked: list[tuple[str, tuple[int, ...]]]
    start: SentenceTransformer
    dense: nn.Linear | None  # what the pooler begins with where the start brings none
    words: dict[int, int]  # entries that are one token: its number

    @property
    def owners(self) -> list[tuple[int, ...]]:
        """Right entries of what is held out."""
        return [own for _, own in self.asked]


@dataclass(frozen=True, eq=False)
class Judge:
    """Scored pairs: the rank correlation of any vectors of their texts."""

    texts: list[str]
    left: list[int]
    right: list[int]
    gold: np.ndarray

    def __call__(self, vectors: FloatArray) -> float:
        """Return Spearman's correlation of cosines with people's scores."""
        x = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return float(spearman_units((x[self.left] * x[self.right]).sum(1), self.gold).mean())


def run(lab: Lab) -> Outcome:
    """Compare targets, then encoders trained towards them."""
    outcome, config = Outcome(), lab.config
    study = _study(lab, outcome)
    vectors = encode(study.start, study.dictionary.definitions, pooling=config["targets"])
    means = entry_vectors(vectors, study.dictionary.owners, len(study.dictionary.entries))
    parts = isotropic_entries(means)
    _targets(study, vectors, means, parts, outcome)
    dev, test = (None if lab.user_data else _judge(lab, split) for split in ("dev", "test"))
    runs = _train(lab, study, means, parts, dev, outcome)
    if test is not None:
        _similarity(study, runs, test, outcome)
        _continue(lab, study, test, outcome)
    _reverse(study, means, runs, outcome)
    return outcome


def _judge(lab: Lab, split: str) -> Judge:
    data = lab.sts("sts/stsb", split)
    count = lab.config["pairs"] or len(data.left)
    texts = sorted({*data.left[:count], *data.right[:count]})
    row = {text: i for i, text in enumerate(texts)}
    left, right = ([row[text] for text in side[:count]] for side in (data.left, data.right))
    return Judge(texts, left, right, data.scores[:count])


def _study(lab: Lab, outcome: Outcome) -> Study:
    rng = np.random.default_rng(0)
    rows, apart = _rows(lab, rng)
    whole = Dictionary.of(rows)
    leaks = round(float(whole.leaks().mean()), 4)
    outcome.fact("dictionary", {"entries": len(whole.entries), "definitions": len(whole),
                                "of several entries": whole.shared, "share that names its entry": leaks})  # fmt: skip
    dictionary, asked = whole.split(_held_out(whole, apart, lab.config["held_out"], rng))
    if len(asked) < 5:
        raise RecipeError(f"Only {len(asked)} definitions can be held out; entries need two definitions or more.")
    start, dense = _start(lab, dictionary, rng, outcome)
    return Study(dictionary, asked, start, dense, _single_tokens(start, dictionary.entries))


def _start(
    lab: Lab, dictionary: Dictionary, rng: np.random.Generator, outcome: Outcome
) -> tuple[SentenceTransformer, nn.Linear | None]:
    """Return the backbone or a small masked language model, and the pooler's first weights if it brings none."""
    config = lab.config
    if config["backbone"]:
        from isometry.encoders import load

        model = load(config["backbone"], engine="torch", pooling="mean", max_tokens=150).model
        return model, prediction_head(config["backbone"]).dense if config["activation"] == "gelu" else None
    texts = list(dictionary.definitions)
    if lab.user_data is None:
        with gzip.open(lab.path("text") / "en" / "wikipedia-106.txt.gz", "rt", encoding="utf-8") as file:
            lines = [line.strip() for line in file if _fits(line)]
        texts += [lines[i] for i in rng.permutation(len(lines))[: config["text"]]]
    sizes = {name: config[name] for name in ("vocab", "dim", "layers")}
    raw = raw_encoder(texts, **sizes, steps=config["mlm_steps"], max_tokens=128,
                      progress=lambda done, all_: lab.progress("language model", done, all_))  # fmt: skip
    outcome.fact("loss of the language model, first and last tenth of its steps", _ends(raw.losses))
    return raw.model, raw.head.dense


def _ends(losses: Sequence[float]) -> list[float]:
    tenth = -(-len(losses) // 10)
    return [round(float(np.mean(part)), 4) for part in (losses[:tenth], losses[-tenth:])]


def _rows(lab: Lab, rng: np.random.Generator) -> tuple[list[tuple[str, list[str]]], set[str]]:
    """Return rows of the dictionary, and definitions that may be held out."""
    if lab.user_data is not None:
        pairs = lab.pairs("")
        return [(entry, [text]) for entry, text in zip(pairs.left, pairs.right, strict=True)], set(pairs.right)
    wordnet: dict[str, list[str]] = defaultdict(list)
    for entry, texts in read_dictionary(lab.path("wordnet") / "synsets.tsv.gz"):
        wordnet[entry.lower()] += [text for text in texts if _fits(text)]
    webster: dict[str, list[str]] = defaultdict(list)
    for entry, texts in read_dictionary(lab.path("text") / "webster1913.jsonl.gz"):
        webster[entry.lower()] += [text for text in texts if _fits(text)]
    both = sorted(entry for entry in wordnet if wordnet[entry] and webster.get(entry))
    chosen = [both[i] for i in rng.permutation(len(both))[: lab.config["entries"] or None]]
    phrases = sorted(entry for entry in wordnet if " " in entry and wordnet[entry])
    chosen += [phrases[i] for i in rng.permutation(len(phrases))[: len(chosen) // 4]]
    rows = [(entry, wordnet[entry][:3] + webster.get(entry, [])[:2]) for entry in chosen]
    return rows, {" ".join(text.split()) for entry in chosen for text in webster.get(entry, [])[:1]}


def _fits(text: str) -> bool:
    return WORDS[0] <= len(text.split()) <= WORDS[1]


def _held_out(whole: Dictionary, apart: set[str], count: int, rng: np.random.Generator) -> Any:
    """Choose definitions of one entry that names itself in none of them, at most one of an entry that has more."""
    left = np.bincount([entry for own in whole.owners for entry in own], minlength=len(whole.entries))
    leaks = whole.leaks()
    free = [i for i, own in enumerate(whole.owners) if len(own) == 1 and left[own[0]] > 1 and not leaks[i]]
    free = [i for i in free if whole.definitions[i] in apart]
    by_entry = {whole.owners[i][0]: i for i in free}
    chosen = [list(by_entry.values())[i] for i in rng.permutation(len(by_entry))[:count]]
    return np.isin(np.arange(len(whole)), chosen)


def _single_tokens(model: SentenceTransformer, entries: Sequence[str]) -> dict[int, int]:
    found = {}
    for number, entry in enumerate(entries):
        for name in entry.split(" | "):
            ids = model.tokenizer(name, add_special_tokens=False)["input_ids"]
            if len(ids) == 1 and ids[0] != model.tokenizer.unk_token_id:
                found[number] = int(ids[0])
                break
    return found


def _targets(study: Study, vectors: FloatArray, means: FloatArray, parts: FloatArray, outcome: Outcome) -> None:
    """Compare the isotropy of matrices of entries, over those entries that all of them have."""
    rows = sorted(study.words)
    tables = {"token embeddings": _embeddings(study), "means of definitions": means[rows], "ICA": parts[rows]}
    scores = {name: _mean_cosines(name, table) for name, table in tables.items()}
    for name, table in tables.items():
        outcome.fact(f"isotropy, {name}", {"mean cosine": round(mean_cosine(table), 4),
                                           "partition": round(partition_isotropy(_unit_scale(table)), 4)})  # fmt: skip
    outcome.compare("definitions-isotropic", scores["means of definitions"], scores["token embeddings"])
    outcome.compare("ica-isotropic", scores["ICA"], scores["means of definitions"])
    bars = {"": [(name, mean_cosine(table)) for name, table in tables.items()]}
    outcome.plot("isotropy", Plot("How alike two entries' targets are", "", "mean cosine", bars, kind="bar"))
    used = parts[:, parts.any(axis=0)]
    white = np.abs(np.cov(used.T.astype(np.float64) / 100, bias=True) - np.eye(used.shape[1])).max()
    detail = f"{used.shape[1]} components, covariance off the identity by at most {white:.0e}"
    outcome.invariant("ica-white", bool(white <= 1e-3), detail)
    single = [(i, own[0]) for i, own in enumerate(study.dictionary.owners) if len(own) == 1]
    counts = np.bincount([e for own in study.dictionary.owners for e in own])
    pairs = [(i, e) for i, e in single if counts[e] == 1]
    off = max((float(np.abs(vectors[i] - means[e]).max()) for i, e in pairs), default=0.0)
    outcome.invariant("single-definition", off <= 1e-5, f"{len(pairs)} such entries, off by at most {off:.0e}")


def _embeddings(study: Study) -> FloatArray:
    body: Any = study.start[0].auto_model
    table = body.get_input_embeddings().weight.detach().numpy()
    return np.asarray(table[[study.words[row] for row in sorted(study.words)]], np.float32)


def _unit_scale(table: FloatArray) -> FloatArray:
    """Scale a matrix to mean norm 1, since the partition function depends on lengths."""
    return np.asarray(table / np.linalg.norm(table, axis=1).mean(), np.float32)


def _mean_cosines(name: str, table: FloatArray) -> Scores:
    unit = table / np.linalg.norm(table, axis=1, keepdims=True)
    values = (unit @ unit.sum(0) - 1) / (len(unit) - 1)
    return Scores.of("entries", name, {"mean cosine": {str(i): float(v) for i, v in enumerate(values)}})


def _train(
    lab: Lab, study: Study, means: FloatArray, parts: FloatArray, dev: Judge | None, outcome: Outcome
) -> dict[str, list[DefinitionRun]]:
    """Train towards three kinds of targets, one run a seed, each at the rate that the development pairs choose."""
    rounds, whole = lab.config["rounds"], study.dictionary
    runs, rates = dict[str, list[DefinitionRun]](), dict[str, Any]()
    systems: dict[str, tuple[Dictionary, FloatArray, int, int]] = {
        "DefSent": (whole.only(sorted(study.words)), _embeddings(study), 1, 0),
        "DefSent+": (whole, means, rounds, 0),
        "DefSent+, ICA": (whole, parts, 1, 0) if rounds == 1 else (whole, means, rounds, 1),
    }
    for name, system in systems.items():
        lab.progress(name, 0, len(lab.seeds))
        tried = {rate: _fit(lab, study, system, rate, lab.seeds[0]) for rate in lab.config["rates"]}
        scores = {rate: 0.0 if dev is None else dev(encode(run.model, dev.texts)) for rate, run in tried.items()}
        rate = rates[name] = max(scores, key=lambda rate: scores[rate])
        runs[name] = [tried[rate], *(_fit(lab, study, system, rate, seed) for seed in lab.seeds[1:])]
        outcome.fact(f"development pairs by learning rate, {name}", {str(r): round(v, 4) for r, v in scores.items()})
        ends = np.mean([_ends(run.losses[-1]) for run in runs[name]], axis=0).round(4).tolist()
        outcome.fact(f"loss, first and last tenth of the steps, {name}", ends)
        outcome.fact(f"logarithm of the number of entries, {name}", round(float(np.log(len(system[1]))), 4))
    if rounds == 1:
        vectors = encode(runs["DefSent+"][0].model, whole.definitions, pooling=lab.config["targets"])
        better = entry_vectors(vectors, whole.owners, len(means))
        again = _fit(lab, study, (whole, better, 1, 0), rates["DefSent+"], lab.seeds[0])
        runs["DefSent+, 2 rounds"] = [again]
    return runs


def _fit(
    lab: Lab, study: Study, system: tuple[Dictionary, FloatArray, int, int], rate: Any, seed: int
) -> DefinitionRun:
    config, (dictionary, entries, rounds, ica_rounds) = lab.config, system
    settings = DefinitionTraining(
        config["steps"], config["batch"], rate, rounds, config["targets"], ica_rounds,
        activation=config["activation"], sampled=config["sampled"] or None,
    )  # fmt: skip
    return train_definitions(study.start, dictionary, settings, entries=entries, dense=study.dense, seed=seed)


def _similarity(study: Study, runs: dict[str, list[DefinitionRun]], test: Judge, outcome: Outcome) -> None:
    raw = test(encode(study.start, test.texts))
    outcome.fact("spearman, raw", round(raw, 4))
    found = {}
    for name, trained in runs.items():
        values = {f"seed {seed}": test(encode(run.model, test.texts)) for seed, run in enumerate(trained)}
        found[name] = Scores.of("sts/stsb", name, {"spearman": values})
        outcome.fact(f"spearman, {name}", round(found[name].mean("spearman"), 4))
    for name, model in (("raw", study.start), ("DefSent+", runs["DefSent+"][0].model)):
        ways = {"cls": encode(model, test.texts, pooling="cls"), "prompt": prompt_vectors(model, test.texts)}
        outcome.fact(f"spearman by other vectors, {name}", {way: round(test(x), 4) for way, x in ways.items()})
    outcome.compare("beats-raw", found["DefSent+"], raw)
    outcome.compare("beats-defsent", found["DefSent+"], found["DefSent"])
    outcome.compare("ica-no-worse", found["DefSent+, ICA"], found["DefSent+"])
    bars = {"": [("raw", raw), *((name, s.mean("spearman")) for name, s in found.items())]}
    outcome.plot("similarity", Plot("Sentence similarity after training on definitions", "", "STS-B Spearman", bars,
                                    kind="bar"))  # fmt: skip


def _continue(lab: Lab, study: Study, test: Judge, outcome: Outcome) -> None:
    """Train a sentence-tuned encoder on a part of the dictionary, as the paper continues its strongest models."""
    from sentence_transformers import SentenceTransformer

    entries, steps = lab.config["tuned"]
    part = study.dictionary.only(range(min(entries, len(study.dictionary.entries))))
    start = SentenceTransformer(modules=list(lab.encoder().model)[:2]).eval()  # without normalisation
    run = train_definitions(start, part, DefinitionTraining(steps, lab.config["batch"], lr=2e-5))
    values = [round(test(encode(model, test.texts)), 4) for model in (start, run.model)]
    outcome.fact(f"spearman of a sentence-tuned encoder before and after {steps} steps", values)
    outcome.fact("its loss, first and last tenth of the steps", _ends(run.losses[0]))


def _reverse(study: Study, means: FloatArray, runs: dict[str, list[DefinitionRun]], outcome: Outcome) -> None:
    """Rank all entries for each held-out definition."""
    texts = [text for text, _ in study.asked]
    ranks = {"raw, cosine": entry_ranks(encode(study.start, texts), means, study.owners, cosine=True).astype(float)}
    for name in ("DefSent+", "DefSent+, ICA"):
        found = [entry_ranks(run.project(encode(run.model, texts)), run.entries, study.owners) for run in runs[name]]
        ranks[name] = np.exp2(np.log2(found).mean(0))
    for name, values in ranks.items():
        top = round(float((values <= 10).mean()), 4)
        outcome.fact(f"rank of the entry of unseen definitions, {name}", {"median": float(np.median(values)),
                                                                          "among the first 10": top})  # fmt: skip
    scores = {
        name: Scores.of("entries", name, {"log2 rank": {str(i): float(v) for i, v in enumerate(np.log2(values))}})
        for name, values in ranks.items()
    }
    outcome.compare("reverse-dictionary", scores["DefSent+"], scores["raw, cosine"])
    grid = [1, 3, 10, 30, 100, 300, 1000]
    series = {name: [(k, float((values <= k).mean())) for k in grid] for name, values in ranks.items()}
    outcome.plot("reverse-dictionary", Plot(f"{len(texts)} unseen definitions, {len(means):,} entries", "k",
                                            "share with the entry among the first k", series, log_x=True))  # fmt: skip
