"""Walking a folder: a sorted, reproducible list of files, and a reason for each that is passed over."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pathspec import GitIgnoreSpec

from isometry.data.readers.beir import is_beir, judgments
from isometry.data.readers.units import Skipped

_PATTERNS = """node_modules/ __pycache__/ venv/ site-packages/ *.egg-info/ *.min.js *.min.css package-lock.json *~ *.swp
    ~$* Thumbs.db desktop.ini"""
EXCLUDED = tuple(_PATTERNS.split())
"""Patterns, in the language of .gitignore, of what is never a person's document; hidden names are left out too."""


@dataclass(frozen=True)
class _Rules:
    """Exclusion patterns and the folder they are relative to."""

    base: Path
    spec: GitIgnoreSpec
    why: str

    def verdict(self, path: Path, *, folder: bool) -> bool | None:
        name = path.relative_to(self.base).as_posix() + ("/" if folder else "")
        return self.spec.check_file(name).include


def walk(root: Path, exclude: Sequence[str], skipped: list[Skipped]) -> Iterator[Path]:
    """Yield the files under ``root``, sorted, those of a folder before those of its subfolders.

    Parameters
    ----------
    root
        The folder.
    exclude
        More patterns to leave out, in the language of .gitignore.
    skipped
        Grows by each file or folder that is passed over; a folder counts once, not with all its files.
    """
    rules = [
        _Rules(root, GitIgnoreSpec.from_lines(EXCLUDED), "excluded by default"),
        _Rules(root, GitIgnoreSpec.from_lines(exclude), "excluded as asked"),
    ]
    waiting = [(root, rules)]
    while waiting:
        folder, rules = waiting.pop()
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            skipped.append(Skipped(_shown(folder, root), error.strerror or str(error)))
            continue
        # What was asked for decides first, then as in git the deepest folder: the last rules are tried first.
        rules = [*rules[:-1], *_gitignore(folder, root, skipped), rules[-1]]
        apart = {path.name for path in judgments(folder)} if is_beir(folder) else set()
        inside: list[Path] = []
        for entry in entries:
            path = folder / entry.name
            is_folder = entry.is_dir(follow_symlinks=False)
            why = "queries and judgments of a BEIR folder" if entry.name in apart else _why_not(entry, path, rules)
            if why:
                skipped.append(Skipped(_shown(path, root) + "/" * is_folder, why))
            elif is_folder:
                inside.append(path)
            else:
                yield path
        waiting.extend((path, rules) for path in reversed(inside))


def _gitignore(folder: Path, root: Path, skipped: list[Skipped]) -> list[_Rules]:
    path = folder / ".gitignore"
    if not path.is_file():
        return []
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        return [_Rules(folder, GitIgnoreSpec.from_lines(lines), f"excluded by {_shown(path, root)}")]
    except (OSError, ValueError) as error:  # ValueError: a pattern git would not take either
        skipped.append(Skipped(_shown(path, root), f"its patterns cannot be read ({error})"))
        return []


def _why_not(entry: os.DirEntry[str], path: Path, rules: list[_Rules]) -> str:
    """Return why an entry is passed over, or nothing."""
    try:
        entry.name.encode("utf-8")
    except UnicodeEncodeError:
        return "its name is not valid UTF-8"
    if entry.name.startswith("."):
        return "hidden"
    if entry.is_symlink() and not path.exists():
        return "a broken link"
    if entry.is_symlink() and path.is_dir():
        return "a link to a folder; links are not followed, which also rules out loops"
    if not (path.is_dir() or path.is_file()):
        return "not a regular file"
    for rule in reversed(rules):
        if (verdict := rule.verdict(path, folder=entry.is_dir(follow_symlinks=False))) is not None:
            return rule.why if verdict else ""
    return ""


def _shown(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix().encode("utf-8", "replace").decode("utf-8")
