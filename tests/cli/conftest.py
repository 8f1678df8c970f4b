"""A home of its own for each test session, and a runner that calls the real command in a new process or in this one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass
class Ran:
    """What a command printed and returned."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)


@pytest.fixture(scope="session")
def home(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def isometry(home, monkeypatch, capfd):
    """Run the command line in this process: the same entry point, without the seconds of a new interpreter."""
    monkeypatch.setenv("ISOMETRY_HOME", str(home))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")

    def run(*arguments: str | Path) -> Ran:
        from isometry.cli import app

        capfd.readouterr()
        monkeypatch.setattr(sys, "argv", ["isometry", *map(str, arguments)])
        code = 0
        try:
            app.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capfd.readouterr()
        return Ran(code, captured.out, captured.err)

    return run


@pytest.fixture
def fresh(home):
    """Run the command line in a new process."""

    def run(*arguments: str | Path, **environment: str) -> Ran:
        command = [sys.executable, "-m", "isometry.cli.app", *map(str, arguments)]
        env = {**os.environ, "ISOMETRY_HOME": str(home), "NO_COLOR": "1", **environment}
        done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=120)
        return Ran(done.returncode, done.stdout, done.stderr)

    return run


NOTES = {
    "cats.md": "# Cats\n\nA cat sleeps most of the day. Kittens purr when they are fed.\n",
    "tax.txt": "The tax return is due in July. Keep receipts of donations and travel.\n",
    "deep/engine.rst": "Engines\n=======\n\nA diesel engine ignites fuel by compression, without a spark.\n",
    "code.py": "def area(r):\n    '''Area of a circle.'''\n    return 3.14159 * r * r\n",
}


@pytest.fixture(scope="session")
def notes(tmp_path_factory) -> Path:
    """A small folder of files of several kinds."""
    root = tmp_path_factory.mktemp("notes")
    for name, text in NOTES.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    (root / "photo.bin").write_bytes(bytes(range(256)) * 8)
    return root
