"""The card of a recipe: what the paper says, which parts carry it, what will be checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from isometry.errors import RecipeError, UnknownName


@dataclass(frozen=True)
class Claim:
    """One thing that should be true.

    Parameters
    ----------
    text
        The claim, as one sentence.
    key
        Name under which the recipe reports it.
    task, metric, baseline
        What is measured on what, against what.
    sign
        ``">"``: the method's value should exceed the baseline's; ``"<"``: be below it.
    margin
        By how much at least, in units of the metric.
    seeds
        Seeds the ``laptop`` preset uses.
    invariant
        True for a fact that must hold exactly, without error bars.
    """

    text: str
    key: str = ""
    task: str = ""
    metric: str = ""
    baseline: str = ""
    sign: Literal[">", "<"] = ">"
    margin: float = 0.0
    seeds: int = 1
    invariant: bool = False


@dataclass(frozen=True)
class Card:
    """A paper's system: read from the source by `isometry.registry`, so every value is a literal.

    ``mechanism`` and ``parts`` name their homes as ``"package.module:Name"``; ``needs`` names the kinds of data the
    recipe can run on; ``presets`` holds its configuration by scale: smoke (<= 15 s), laptop (<= 10 min), paper.
    """

    slug: str
    title: str
    arxiv: str = ""
    year: int = 0
    kind: str = "system"
    summary: str = ""
    mechanism: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    aspects: Mapping[str, str] = field(default_factory=dict)
    headline: str = ""
    claims: tuple[Claim, ...] = ()
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @classmethod
    def from_literals(cls, values: Mapping[str, Any]) -> Card:
        """Build from what `isometry.registry` read.

        Raises
        ------
        RecipeError
            If a keyword is not one of a card's, or two claims share a key.
        """
        try:
            claims = tuple(Claim(c.pop("0"), **c) for c in map(dict, values.get("claims", ())))
            card = cls(**{**values, "claims": claims})
        except (TypeError, KeyError) as error:
            raise RecipeError(f"The card of {values.get('slug')!r} cannot be read: {error}.") from error
        keys = [claim.key for claim in claims]
        if len(set(keys)) < len(keys) or "" in keys:
            raise RecipeError(f"The card of {card.slug!r} needs one distinct key per claim, got {keys}.")
        return card

    def claim(self, key: str) -> Claim:
        """Return the claim of that key."""
        for claim in self.claims:
            if claim.key == key:
                return claim
        raise UnknownName("claim", key, (c.key for c in self.claims))

    def preset(self, name: str) -> Mapping[str, Any]:
        """Return the configuration of that scale."""
        if name not in self.presets:
            raise UnknownName("preset", name, self.presets)
        return self.presets[name]
