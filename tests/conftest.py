"""Shared fixtures: where the data sets are, the default encoder, determinism."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # spinning barriers starve a second process on two cores
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def shared_data() -> Path | None:
    """Return the folder of shared data sets (``ISOMETRY_DATA`` or ``../shared/data`` beside the checkout), if there."""
    named = os.environ.get("ISOMETRY_DATA")
    root = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "data"
    return root if root.is_dir() else None


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Folder of the shared data sets; the test is skipped, saying so, where there is none."""
    root = shared_data()
    if root is None:
        pytest.skip("shared data sets not found: set ISOMETRY_DATA to their folder")
    return root


@pytest.fixture(scope="session")
def minilm():
    """The default encoder, loaded once, reference engine."""
    from isometry.encoders import load

    return load("minilm", engine="torch")
