"""Synthetic training rows: a generator writes texts, filters judge them, every row says where it came from.

synthesise, rewrite                 documents, or rows there are, to new rows
RuleGenerator, Thesaurus            a deterministic writer by rules, without a language model: a stand-in for one
PromptGenerator, OpenAIEndpoint     any language model, as a function from prompt to text, or behind an endpoint
Filters                             no duplicates, lengths, a window of similarity
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from isometry.lazy import exports

if TYPE_CHECKING:
    from isometry.data.synthesis.endpoint import OpenAIEndpoint
    from isometry.data.synthesis.filters import Filters, filter_rows
    from isometry.data.synthesis.generator import MODES, Configuration, Generator, Mode, Request
    from isometry.data.synthesis.pipeline import Synthesis, nearest_personas, rewrite, synthesise
    from isometry.data.synthesis.prompting import PromptGenerator
    from isometry.data.synthesis.rows import Provenance, SyntheticRow, read_rows, write_rows
    from isometry.data.synthesis.rules import RuleGenerator, inverse_cloze
    from isometry.data.synthesis.thesaurus import Thesaurus

_HOMES = {
    "Configuration": "generator",
    "Filters": "filters",
    "Generator": "generator",
    "MODES": "generator",
    "Mode": "generator",
    "OpenAIEndpoint": "endpoint",
    "PromptGenerator": "prompting",
    "Provenance": "rows",
    "Request": "generator",
    "RuleGenerator": "rules",
    "Synthesis": "pipeline",
    "SyntheticRow": "rows",
    "Thesaurus": "thesaurus",
    "filter_rows": "filters",
    "inverse_cloze": "rules",
    "nearest_personas": "pipeline",
    "read_rows": "rows",
    "rewrite": "pipeline",
    "synthesise": "pipeline",
    "write_rows": "rows",
}

__all__ = [
    "MODES",
    "Configuration",
    "Filters",
    "Generator",
    "Mode",
    "OpenAIEndpoint",
    "PromptGenerator",
    "Provenance",
    "Request",
    "RuleGenerator",
    "Synthesis",
    "SyntheticRow",
    "Thesaurus",
    "filter_rows",
    "inverse_cloze",
    "nearest_personas",
    "read_rows",
    "rewrite",
    "synthesise",
    "write_rows",
]

__getattr__, __dir__ = exports(__name__, _HOMES)
