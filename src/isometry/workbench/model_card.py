"""The model card of a changed model: what was done, on what, and what was measured."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from isometry import __version__
from isometry.files import write_whole
from isometry.types import finite

_KINDS = (
    ("SentenceTransformer", "sentence-similarity", "feature-extraction", 'model.encode(["a sentence"])'),
    ("CrossEncoder", "text-ranking", "cross-encoder", 'model.predict([("a query", "a document")])'),
)


def write_card(folder: Path, facts: Mapping[str, Any], *, title: str) -> None:
    """Write ``README.md`` and ``isometry.json`` into a model's folder.

    Parameters
    ----------
    facts
        What was done, as written to ``isometry.json``. Read for the card: ``verdict``, ``warnings``, ``notes``,
        ``held_out`` and ``elsewhere`` (comparisons before and after); everything else becomes the table of settings.
    """
    clean = finite({**facts, "version": __version__})
    write_whole(folder / "isometry.json", f"{json.dumps(clean, indent=1, ensure_ascii=False)}\n".encode())
    write_whole(folder / "README.md", _card(clean, title).encode())


def _card(facts: Mapping[str, Any], title: str) -> str:
    rows = [c for c in [facts.get("held_out"), *facts.get("elsewhere", [])] if c]
    told = {"verdict", "warnings", "notes", "held_out", "elsewhere", "version", "out", "compared"}
    kind, task, feature, use = _KINDS[facts.get("kind") == "cross-encoder"]
    lines = [
        "---", "library_name: sentence-transformers", f"pipeline_tag: {task}",
        f"tags: [sentence-transformers, {task}, {feature}, isometry]", "---", "",
        f"# {title}", "", f"{facts.get('verdict', '')}".strip(), "",
        *[f"**Warning:** {warning}" for warning in facts.get("warnings", [])], "",
    ]  # fmt: skip
    if rows:
        first, second = facts.get("compared", ("before", "after"))
        lines += ["## Measured", "", f"| task | metric | n | {first} | {second} | change (95 % interval) |"]
        lines += ["|---|---|---:|---:|---:|---:|", *map(_row, rows), ""]
    lines += ["## Made by", "", "| | |", "|---|---|"]
    lines += [f"| {key.replace('_', ' ')} | {_cell(value)} |" for key, value in facts.items() if key not in told]
    lines += [f"| isometry | {facts['version']} |", "", *[f"- {note}" for note in facts.get("notes", [])], ""]
    lines += ["## Use", "", "```python", f"from sentence_transformers import {kind}", "",
              f'model = {kind}("{title}")', use, "```", ""]  # fmt: skip
    return "\n".join(lines)


def _row(c: Mapping[str, Any]) -> str:
    low, high = c["ci95"]
    return (
        f"| {c['task']} | {c['metric']} | {c['n']:,} | {c['before']:.4f} | {c['after']:.4f} "
        f"| {c['delta']:+.4f} ({low:+.4f} to {high:+.4f}) |"
    )


def _cell(value: Any) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(_cell, value))
    return str(value).replace("|", "\\|").replace("\n", " ")
