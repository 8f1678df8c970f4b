"""The frame recipes run in: cards, claims, the lab that hands out data, outcomes with computed verdicts."""

from isometry.lab.bench import Lab
from isometry.lab.card import Card, Claim
from isometry.lab.outcome import Finding, Outcome
from isometry.lab.plots import Plot

__all__ = ["Card", "Claim", "Finding", "Lab", "Outcome", "Plot"]
