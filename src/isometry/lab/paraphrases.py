"""Positive pairs to learn from and pairs to judge by: the user's, or the named set's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import spearmanr

from isometry.data.converters import says_alike
from isometry.errors import RecipeError
from isometry.lab.bench import Lab
from isometry.types import FloatArray


@dataclass(frozen=True, eq=False)
class Paraphrases:
    """Pairs that mean the same, and others that are judged.

    Parameters
    ----------
    left, right
        Texts of the positive pairs.
    test
        Left and right texts to judge by.
    gold
        How similar people found these; None where all of them are positives without a score.
    """

    left: list[str]
    right: list[str]
    test: tuple[list[str], list[str]]
    gold: np.ndarray | None

    @property
    def metric(self) -> str:
        """How vectors are judged."""
        return "mrr" if self.gold is None else "spearman"

    def score(self, left: FloatArray, right: FloatArray) -> float:
        """Judge unit vectors of the test pairs: rank correlation with people, or reciprocal rank of the partner."""
        if self.gold is not None:
            return float(spearmanr((left * right).sum(1), self.gold[: len(left)]).statistic)
        similarity = left @ right.T
        return float((1 / (similarity >= similarity.diagonal()[:, None]).sum(1)).mean())


def paraphrases(lab: Lab, *, limit: int = 0, least: int = 32) -> Paraphrases:
    """Read pairs: of scored ones, those of at least four fifths of the highest score are positives.

    Parameters
    ----------
    lab
        Its user's data, scored pairs or plain ones, 70% of them to learn from; otherwise the STS benchmark. Of pairs
        with labels, those that say their texts belong together are taken.
    limit
        Pairs at most on either side; 0: all.
    least
        Positive pairs needed.

    Raises
    ------
    RecipeError
        If there are too few pairs.
    """
    gold: np.ndarray | None = None
    cut = 0
    try:
        sets = [lab.sts("sts/stsb", split) for split in ("train", "test")][: 2 if lab.user_data is None else 1]
        left, right = ([text for part in sets for text in getattr(part, side)] for side in ("left", "right"))
        gold, cut = np.concatenate([part.scores for part in sets]), len(sets[0].left) if lab.user_data is None else 0
    except RecipeError:
        pairs = lab.pairs("pairs/mrpc")
        alike = [i for i in range(len(pairs.left)) if pairs.labels is None or says_alike(pairs.labels[i])]
        left, right = [pairs.left[i] for i in alike], [pairs.right[i] for i in alike]
    order = np.arange(len(left))
    if not cut:
        order, cut = np.random.default_rng(0).permutation(len(left)), round(0.7 * len(left))
    learn, judge = order[:cut], order[cut:]
    if gold is not None:
        learn = learn[gold[learn] >= 0.8 * gold.max()]
    learn, judge = learn[: limit or None], judge[: limit or None]
    if len(learn) < least or len(judge) < 2:
        raise RecipeError(
            f"Training needs at least {least} positive pairs and judging 2 more; got {len(learn)} and {len(judge)}."
        )
    one, two = ([[side[i] for i in rows] for side in (left, right)] for rows in (learn, judge))
    return Paraphrases(one[0], one[1], (two[0], two[1]), None if gold is None else gold[judge])
