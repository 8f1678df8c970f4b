"""Pixel Linguist: sentences drawn as thin pictures and encoded by a vision transformer, without a tokenizer.

A pixel encoder and a subword encoder with the same transformer are trained from scratch on the same pairs, and asked to
find a sentence again from a copy with typing errors. Everything here is far smaller than the paper's 86 million
parameters and a million sentences. Where words follow each other as in print, a lost letter or another first word moves
all later letters within their patches, and so short a training hardly learns to read at all; each word therefore begins
in a patch of its own. Running print is measured beside it, as is the loss that each training ends with.
"""

from __future__ import annotations

import copy
import csv
import dataclasses
import gzip
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor, nn

from isometry.data import load_set, perturb
from isometry.data.perturbations import crop_words, typos
from isometry.encoders import PixelEncoder
from isometry.encoders.backbones import tiny_encoder
from isometry.errors import InputError, RecipeError
from isometry.lab import Card, Claim, Lab, Outcome, Plot
from isometry.modules import MaskedPixels, PixelConfig, PixelTransformer, TextRenderer
from isometry.tasks.sts import spearman_units
from isometry.training import LengthBatches, train, train_wordpiece
from isometry.training.merging import average
from isometry.training.towers import Pairs, Tower, align, pixel_tower, subword_tower
from isometry.types import FloatArray, Scores

if TYPE_CHECKING:
    from isometry.data.schemas import STS

CARD = Card(
    slug="pixel-linguist",
    title="Pixel Sentence Representation Learning",
    arxiv="2402.08183",
    year=2024,
    kind="system",
    summary=(
        "Text is drawn on one line, cut into patches and encoded by a vision transformer; there is no vocabulary. A "
        "typing error or two exchanged words change the picture a little, so damaged copies are natural positives. "
        "Alignment goes on from damaged copies to spans of one article, entailed sentences and translations; four "
        "models trained on four kinds of damage are averaged."
    ),
    mechanism=(
        "isometry.modules.text_renderer:TextRenderer",
        "isometry.modules.pixel_transformer:PixelTransformer",
        "isometry.encoders.pixels:PixelEncoder",
    ),
    parts=(
        "isometry.modules.pixel_transformer:MaskedPixels",
        "isometry.data.perturbations:perturb",
        "isometry.objectives.views:symmetric_info_nce",
        "isometry.training.merging.states:average",
        "isometry.training.towers:align",
    ),
    needs=("documents",),
    aliases=("PIXEL", "tokenizer-free", "visual text", "rendered text", "typo robustness"),
    aspects={"task": "sentence similarity", "method": "rendered text, vision transformer", "data": "sentences"},
    headline="STS-B Spearman in the upper seventies without any token-based language model",
    claims=(
        Claim("trained on undamaged text, a pixel encoder finds a sentence with 4 typos at least 5 points more often",
              key="typos", task="damaged copies", metric="top-1", baseline="subwords", margin=0.05, seeds=3),
        Claim("trained on typos too, the pixel encoder finds it more often",
              key="pixels-learn-typos", task="damaged copies", metric="top-1", baseline="pixels, undamaged", seeds=3),
        Claim("so does the subword encoder",
              key="subwords-learn-typos", task="damaged copies", metric="top-1", baseline="subwords, undamaged",
              seeds=3),
        Claim("and the lead of pixels over subwords becomes smaller",
              key="gap-shrinks", task="damaged copies", metric="top-1", baseline="after training on typos", seeds=3),
        Claim("visual alignment raises the similarity of sentences over the untrained transformer",
              key="alignment", task="sts/stsb", metric="spearman", baseline="untrained", seeds=3),
        Claim("pairs of like meaning raise it further",
              key="meaning", task="sts/stsb", metric="spearman", baseline="visual alignment", seeds=3),
        Claim("one changed letter of a monospaced font changes at most two patches", key="local", invariant=True),
        Claim("the same text is the same picture", key="deterministic", invariant=True),
        Claim("averaging four equal checkpoints changes nothing", key="average", invariant=True),
    ),
    presets={
        "smoke": {"seeds": 1, "steps": 4, "stages": (("reasoning", 2, 5e-4), ("multilingual", 2, 5e-4)), "batch": 16,
                  "rate": 1e-3, "texts": 150, "longest": 36, "pool": 60, "pairs": 60, "judged": 20, "dim": 32,
                  "layers": 1, "heads": 2, "patches": 64, "patch_width": 8, "words": True, "vocab": 600, "mae_steps": 2,
                  "damage_steps": 1, "damage_rate": 1e-4, "dropout": 0.1},
        "laptop": {"seeds": 3, "steps": 150, "batch": 48, "rate": 1e-3, "texts": 9000, "longest": 36, "pool": 1000,
                   "stages": (("topical", 24, 5e-4), ("reasoning", 24, 5e-4), ("multilingual", 24, 5e-4),
                              ("reasoning", 24, 5e-4)),
                   "pairs": 0, "judged": 200, "dim": 96, "layers": 3, "heads": 4, "patches": 64, "patch_width": 8,
                   "words": True, "vocab": 4000, "mae_steps": 40, "damage_steps": 15, "damage_rate": 1e-4,
                   "dropout": 0.1},
        "paper": {"seeds": 3, "steps": 1300, "batch": 768, "rate": 3e-6, "texts": 1000000, "longest": 140,
                  "pool": 1000, "pairs": 0, "judged": 0,
                  "stages": (("topical", 50500, 3e-5), ("reasoning", 2600, 3e-5), ("multilingual", 200000, 3e-5),
                             ("reasoning", 2600, 3e-5), ("multilingual", 200000, 3e-5), ("reasoning", 2600, 3e-5)),
                  "dim": 768, "layers": 12, "heads": 12, "patches": 64, "patch_width": 16, "words": False,
                  "vocab": 30000, "mae_steps": 1000000, "damage_steps": 1300, "damage_rate": 3e-6, "dropout": 0.1},
    },
)  # fmt: skip

TYPOS = (0, 1, 2, 4)
DAMAGES = {"typos": "typos", "all words": "shuffle", "within clauses": "shuffle within", "mixed": "mixed"}
JUDGED = ("en", "de", "es", "fr")
DRAWN = ("deu", "fra", "spa", "ita", "nld", "por", "rus", "ell", "tur")  # their scripts need no shaping
Scored = tuple[list[str], list[str], FloatArray]


def run(lab: Lab) -> Outcome:
    """Train both encoders with and without typos, then look at similarity, damages and the pictures themselves."""
    outcome = Outcome()
    renderer = _renderer(lab, words=lab.config["words"])
    texts = _texts(lab, renderer)
    pool, learn = texts[: lab.config["pool"]], texts[lab.config["pool"] :]
    outcome.fact(
        "font",
        f"{renderer.font_name}, {renderer.size} px, patches {renderer.height} x {renderer.patch_width}, "
        f"{'each word in patches of its own' if renderer.words else 'running print'}",
    )
    tokenizer = train_wordpiece(learn, lab.config["vocab"])
    towers = _robustness(lab, renderer, tokenizer, learn, pool, outcome)
    if lab.user_data is None:
        _similarity(lab, renderer, towers, outcome)
    if lab.config["words"]:
        _running_print(lab, learn, pool, outcome)
    _damages(lab, renderer, towers[0], learn, pool, outcome)
    _pictures(renderer, tokenizer, pool, outcome)
    return outcome


def _renderer(lab: Lab, *, words: bool) -> TextRenderer:
    return TextRenderer(patch_width=lab.config["patch_width"], patches=lab.config["patches"], words=words,
                        remember=20_000)  # fmt: skip


def _texts(lab: Lab, renderer: TextRenderer) -> list[str]:
    """Return texts that can be drawn, of 15 characters or more, in random order."""
    longest = lab.config["longest"]
    if lab.user_data is None:
        with gzip.open(lab.path("wordnet") / "synsets.tsv.gz", "rt", encoding="utf-8", newline="") as file:
            found = [row["definition"] for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]
        data = lab.sts("sts/stsb", "train")
        found += [*data.left, *data.right]
    else:
        found = [document.content for document in lab.documents("")]
    short = sorted({" ".join(text.split()) for text in found if 15 <= len(text) <= longest})
    kept = list[str]()
    for i in np.random.default_rng(0).permutation(len(short)):
        if len(kept) == lab.config["texts"]:
            break
        kept += [short[i]] if _drawn(renderer, short[i]) else []
    if len(kept) < 2 * lab.config["batch"] + 20:
        raise RecipeError(f"Only {len(kept)} texts of 15 to {longest} characters can be drawn; give more.")
    return kept


def _drawn(renderer: TextRenderer, text: str) -> bool:
    return _known(renderer, text) and not renderer.render([text]).cut.any()


def _pixels(lab: Lab, renderer: TextRenderer, seed: int) -> Tower:
    config = lab.config
    sizes = PixelConfig(renderer.patch_pixels, config["dim"], config["layers"], config["heads"], renderer.patches,
                        config["dropout"])  # fmt: skip
    return pixel_tower(renderer, PixelTransformer(sizes, seed=seed))


def _subwords(lab: Lab, tokenizer: Any, seed: int) -> Tower:
    sizes = {name: lab.config[name] for name in ("dim", "layers", "heads")}
    return subword_tower(tokenizer, tiny_encoder(len(tokenizer), **sizes, seed=seed))


def _align(lab: Lab, tower: Tower, pairs: Callable[[list[int], int], Pairs], lengths: Sequence[int], *,
           steps: int, lr: float, seed: int) -> float:  # fmt: skip
    """Train and return the mean loss of the last tenth of the steps."""
    losses = align(tower, pairs, lengths, steps=steps, batch_size=lab.config["batch"], lr=lr, seed=seed)
    return float(np.mean(losses[-max(1, steps // 10) :]))


def _visual(lab: Lab, tower: Tower, texts: list[str], seed: int, *, damaged: bool) -> float:
    """Align texts with crops of themselves, which with ``damaged`` also have 0 to 4 typos."""

    def pairs(rows: list[int], step: int) -> Pairs:
        rng = np.random.default_rng((seed, step))
        left, right = [texts[row] for row in rows], [crop_words(texts[row], 0.7, rng) for row in rows]
        return left, [typos(text, int(rng.integers(5)), rng) for text in right] if damaged else right

    lengths = [len(text) for text in texts]
    return _align(lab, tower, pairs, lengths, steps=lab.config["steps"], lr=lab.config["rate"], seed=seed)


def _robustness(lab: Lab, renderer: TextRenderer, tokenizer: Any, learn: list[str], pool: list[str],
                outcome: Outcome) -> list[Tower]:  # fmt: skip
    """Train and ask for the original of damaged copies; return the pixel encoders trained on undamaged text."""
    found: dict[tuple[str, bool, int], list[FloatArray]] = {}
    kept, ends = list[Tower](), dict[str, list[float]]()
    copies = {count: perturb(pool, "typos", strength=count, seed=1) for count in TYPOS}
    for seed in lab.seeds:
        for damaged in (False, True):
            towers = {"pixels": _pixels(lab, renderer, seed), "subwords": _subwords(lab, tokenizer, seed)}
            for name, tower in towers.items():
                label = f"{name}, {'typos' if damaged else 'undamaged'}"
                lab.progress(label, seed, len(lab.seeds))
                ends.setdefault(label, []).append(_visual(lab, tower, learn, seed, damaged=damaged))
                for count, first in _first(tower, pool, copies).items():
                    found.setdefault((name, damaged, count), []).append(first)
            kept += [] if damaged else [towers["pixels"]]
    outcome.fact("loss at the end of training", {name: round(float(np.mean(v)), 4) for name, v in ends.items()})
    means = {key: np.mean(values, axis=0) for key, values in found.items()}
    series: dict[str, list[tuple[Any, float]]] = {}
    for (name, damaged, count), values in means.items():
        label = f"{name}, trained on {'typos' if damaged else 'undamaged text'}"
        series.setdefault(label, []).append((count, round(float(values.mean()), 4)))
    for label, points in series.items():
        outcome.fact(f"top-1 by typos, {label}", dict(points))
    outcome.plot("typos", Plot(f"The original of a copy with typos, among {len(pool):,}", "typos", "top-1", series))
    four = {(name, damaged): means[name, damaged, 4] for name in ("pixels", "subwords") for damaged in (False, True)}
    outcome.compare("typos", _scores("pixels", four["pixels", False]), _scores("subwords", four["subwords", False]))
    for name in ("pixels", "subwords"):
        outcome.compare(f"{name}-learn-typos", _scores(name, four[name, True]), _scores(name, four[name, False]))
    before, after = (_scores("gap", four["pixels", d] - four["subwords", d]) for d in (False, True))
    outcome.compare("gap-shrinks", before, after)
    return kept


def _first(tower: Tower, pool: list[str], copies: dict[int, list[str]]) -> dict[int, FloatArray]:
    """Return, by number of typos, for which copies the original is found first: 1 or 0."""
    originals = tower.encode(pool)
    return {count: ((tower.encode(texts) @ originals.T).argmax(1) == np.arange(len(pool))).astype(np.float32)
            for count, texts in copies.items()}  # fmt: skip


def _running_print(lab: Lab, learn: list[str], pool: list[str], outcome: Outcome) -> None:
    """Train one pixel encoder on words that follow each other as in print."""
    renderer = _renderer(lab, words=False)
    learn, pool = ([text for text in texts if _drawn(renderer, text)] for texts in (learn, pool))
    tower = _pixels(lab, renderer, lab.seeds[0])
    loss = _visual(lab, tower, learn, lab.seeds[0], damaged=False)
    outcome.fact("running print, loss at the end of training", round(loss, 4))
    found = _first(tower, pool, {count: perturb(pool, "typos", strength=count, seed=1) for count in TYPOS})
    outcome.fact("running print, top-1 by typos", {count: round(float(v.mean()), 4) for count, v in found.items()})


def _similarity(lab: Lab, renderer: TextRenderer, towers: list[Tower], outcome: Outcome) -> None:
    """Judge by STS-B: untrained, aligned, and after each further stage."""
    english = _judged(lab, renderer, "en", lab.config["pairs"])
    some = {lang: _judged(lab, renderer, lang, lab.config["judged"]) for lang in JUDGED}
    cut = renderer.render([*english[0], *english[1]]).cut
    outcome.fact("STS texts longer than the line", f"{int((cut > 0).sum())} of {len(cut)}")
    start = [_pixels(lab, renderer, seed) for seed in lab.seeds]
    units = {"untrained": _units(english, start), "visual alignment": _units(english, towers)}
    tables = {"visual alignment": {lang: round(float(_units(p, towers).mean()), 4) for lang, p in some.items()}}
    ends = dict[str, float]()
    for number, (stage, steps, lr) in enumerate(lab.config["stages"]):
        pairs, name = _stage_pairs(lab, renderer, stage), f"{number + 1}. {stage}"
        lengths, towers = [len(text) for text in pairs[0]], [_copy(renderer, tower) for tower in towers]
        losses = [_align(lab, tower, _picker(pairs), lengths, steps=steps, lr=lr, seed=seed)
                  for seed, tower in enumerate(towers)]  # fmt: skip
        ends[f"{name}, {len(lengths)} pairs"] = round(float(np.mean(losses)), 4)
        tables[name] = {lang: round(float(_units(p, towers).mean()), 4) for lang, p in some.items()}
    units["all stages"] = _units(english, towers)
    outcome.fact("STS-B spearman", {name: round(float(values.mean()), 4) for name, values in units.items()})
    outcome.fact("loss at the end of stages", ends)
    outcome.fact("STS-B spearman of some pairs by language, after stages", tables)
    series = {lang: [(i, row[lang]) for i, row in enumerate(tables.values())] for lang in some}
    outcome.plot("stages", Plot("Sentence similarity after " + ", ".join(tables), "stage", "STS-B Spearman", series))
    scores = {name: _scores(name, values, "spearman") for name, values in units.items()}
    outcome.compare("alignment", scores["visual alignment"], scores["untrained"])
    outcome.compare("meaning", scores["all stages"], scores["visual alignment"])


def _judged(lab: Lab, renderer: TextRenderer, lang: str, count: int) -> Scored:
    """Return test pairs of a language that can be drawn, the first so many or all."""
    data: STS = load_set("sts/stsb", kind="sts", split="test", lang=lang, root=lab.data_root)
    rows = [i for i, texts in enumerate(zip(data.left, data.right, strict=True))
            if all(_known(renderer, text) for text in texts)][: count or None]  # fmt: skip
    return [data.left[i] for i in rows], [data.right[i] for i in rows], np.asarray(data.scores[rows], np.float32)


def _units(pairs: Scored, towers: list[Tower]) -> FloatArray:
    """Return each pair's share of the rank correlation, mean of encoders."""
    left, right, gold = pairs
    cosines = [(tower.encode(left) * tower.encode(right)).sum(1) for tower in towers]
    return np.asarray(np.mean([spearman_units(row, gold) for row in cosines], axis=0))


def _picker(pairs: Pairs) -> Callable[[list[int], int], Pairs]:
    return lambda rows, _: ([pairs[0][row] for row in rows], [pairs[1][row] for row in rows])


def _stage_pairs(lab: Lab, renderer: TextRenderer, stage: str) -> Pairs:
    """Return pairs of texts that a stage aligns."""
    if stage == "reasoning":
        data = lab.sts("sts/stsb", "train")
        near = np.flatnonzero(data.scores >= 0.8 * data.scores.max()).tolist()
        rows = [(data.left[i], data.right[i]) for i in near]
        with gzip.open(lab.path("pairs/snli") / "train.tsv.gz", "rt", encoding="utf-8", newline="") as file:
            table = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            rows += [(row["premise"], row["hypothesis"]) for row in table if row["label"] == "entailment"]
    elif stage == "topical":
        with gzip.open(lab.path("text") / "en" / "wikipedia-106.txt.gz", "rt", encoding="utf-8") as file:
            lines = [_span(line) for line in file if len(line) > 15]
        rows = list(zip(lines[::2], lines[1::2], strict=False))  # neighbouring sentences of an article
    elif stage == "multilingual":
        with gzip.open(lab.path("multi") / "tatoeba.tsv.gz", "rt", encoding="utf-8", newline="") as file:
            table = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            rows = [(row["text"], row["english"]) for row in table if row["lang"] in DRAWN]
    else:
        raise RecipeError(f"There is no stage {stage!r}; known: topical, reasoning, multilingual.")
    rows = [(a, b) for a, b in rows if _drawn(renderer, a) and _drawn(renderer, b)]
    return [a for a, _ in rows], [b for _, b in rows]


def _span(line: str, most: int = 48) -> str:
    """Return the first whole words of a line, at most so many characters."""
    return line.strip() if len(line) <= most else line[:most].rsplit(" ", 1)[0]


def _known(renderer: TextRenderer, text: str) -> bool:
    try:
        renderer.check([text])
    except InputError:
        return False
    return True


def _copy(renderer: TextRenderer, tower: Tower) -> Tower:
    model = copy.deepcopy(tower.module)
    assert isinstance(model, PixelTransformer)
    return pixel_tower(renderer, model)


def _damages(lab: Lab, renderer: TextRenderer, start: Tower, learn: list[str], pool: list[str],
             outcome: Outcome) -> None:  # fmt: skip
    """Train one model per kind of damage from one start, average them, and probe how blind they are to order."""
    config, models = lab.config, dict[str, Tower]()
    for name, kind in DAMAGES.items():
        tower = models[name] = _copy(renderer, start)

        def pairs(rows: list[int], step: int, kind: str = kind) -> Pairs:
            left = [learn[row] for row in rows]
            return left, perturb(left, kind, strength=2, seed=step)

        _align(
            lab, tower, pairs, [len(t) for t in learn], steps=config["damage_steps"], lr=config["damage_rate"], seed=0
        )
    models["average of the four"] = merged = _copy(renderer, start)
    merged.module.load_state_dict(average([models[name].module.state_dict() for name in DAMAGES]))
    models["start"] = start
    models["masked pixels, then crops"] = _pretrained(lab, renderer, learn)
    shuffled, mistyped = perturb(pool, "shuffle", strength=1, seed=3), perturb(pool, "typos", strength=4, seed=3)
    for name, tower in models.items():
        x, y, z = (tower.encode(texts) for texts in (pool, shuffled, mistyped))
        far = ((x * y).sum(1) < (x * z).sum(1)).mean()
        top = ((z @ x.T).argmax(1) == np.arange(len(pool))).mean()
        outcome.fact(f"damages, {name}", {"shuffled words lie farther than 4 typos": round(float(far), 4),
                                          "top-1 at 4 typos": round(float(top), 4)})  # fmt: skip
    same = start.module.state_dict()
    again = average([same] * 4)
    worst = max(float((again[key] - same[key]).abs().max()) for key in same)
    outcome.invariant("average", worst <= 1e-6, f"largest change {worst:.0e}")


def _pretrained(lab: Lab, renderer: TextRenderer, learn: list[str]) -> Tower:
    """Train a masked autoencoder for a while, then align as the others."""
    tower = _pixels(lab, renderer, lab.seeds[0])
    assert isinstance(tower.module, PixelTransformer)
    pixels = PixelEncoder(renderer, tower.module, warn=False)

    def loss(module: nn.Module, rows: list[int]) -> Tensor:
        value: Tensor = module(*pixels.inputs([learn[row] for row in rows]))
        return value

    batches = LengthBatches([len(text) for text in learn], lab.config["batch"])
    train(MaskedPixels(tower.module), batches, loss, steps=lab.config["mae_steps"], lr=1e-3)
    _visual(lab, tower, learn, lab.seeds[0], damaged=False)
    return tower


def _pictures(renderer: TextRenderer, tokenizer: Any, pool: list[str], outcome: Outcome) -> None:
    """Count what one substituted letter changes: patches of the picture, tokens of the text."""
    texts = pool[:300]
    wrong = [typos(text, 1, np.random.default_rng((5, i)), kinds=["substitute"]) for i, text in enumerate(texts)]
    a, b = (renderer.to_patches(renderer.render(side).images) for side in (texts, wrong))
    patches = (a != b).any(axis=2).sum(1)
    outcome.invariant("local", bool(patches.max() <= 2), f"patches changed: 1 to {patches.max()}")
    again = dataclasses.replace(renderer).render(texts).images
    outcome.invariant("deterministic", bool((again == renderer.render(texts).images).all()), renderer.fingerprint)
    tokens = np.array([len(_changed(tokenizer.tokenize(x), tokenizer.tokenize(y))) for x, y in
                       zip(texts, wrong, strict=True)])  # fmt: skip
    shares = {name: {int(k): round(float((values == k).mean()), 3) for k in np.unique(values)} for name, values in
              (("patches", patches), ("tokens", tokens))}  # fmt: skip
    outcome.fact("changed by one letter, share of texts", shares)
    series = {name: list(by_count.items()) for name, by_count in shares.items()}
    outcome.plot("locality", Plot("What one substituted letter changes", "patches or tokens", "share of texts", series,
                                  kind="bar"))  # fmt: skip


def _changed(before: list[str], after: list[str]) -> list[str]:
    """Return the tokens after a change that were not there before it, ends compared from both sides."""
    head = next(
        (i for i, (x, y) in enumerate(zip(before, after, strict=False)) if x != y), min(len(before), len(after))
    )
    rest, new = before[head:], after[head:]
    while rest and new and rest[-1] == new[-1]:
        rest, new = rest[:-1], new[:-1]
    return new


def _scores(system: str, values: Any, metric: str = "top-1") -> Scores:
    return Scores.of("pixels", system, {metric: {str(i): float(v) for i, v in enumerate(values)}})
