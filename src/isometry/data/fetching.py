"""Fetching a data set from the Hugging Face hub into the cache folder, only when asked to."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from isometry.data.readers.records import plain
from isometry.data.sets import cache_root
from isometry.errors import InputError

_OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")


def fetch(name: str, *, config: str | None = None, split: str | None = None, to: str | Path | None = None) -> Path:
    """Download a data set and write each split as ``<split>.jsonl`` into a folder, whole or not at all.

    Parameters
    ----------
    name, config
        Name on the hub and, where it has several, the configuration.
    split
        One split; all by default.
    to
        Folder to write; by default one in the cache folder, where `find` sees it under ``name`` (or ``name/config``).

    Raises
    ------
    InputError
        If working offline is set, the hub cannot be reached, or it has no such data set.
    """
    place = "/".join(filter(None, (name, config)))
    if any(part in ("", ".", "..") for part in place.split("/")):
        raise InputError(f"{place!r} is no name of a data set on the hub; it looks like 'owner/name'.")
    if offline := next((v for v in _OFFLINE if os.environ.get(v, "").lower() in ("1", "true", "yes", "on")), None):
        raise InputError(f"{place!r} cannot be fetched: {offline} is set; unset it to go online.")
    folder = Path(to) if to is not None else cache_root() / place
    splits = _download(name, config, split)
    _write(folder, splits)
    return folder


def _download(name: str, config: str | None, split: str | None) -> dict[str, Iterable[Mapping[str, Any]]]:
    import datasets
    from huggingface_hub.errors import HfHubHTTPError

    # The bases name the error of whichever HTTP library the hub's client is built on.
    bases = cast("tuple[type[Exception], ...]", HfHubHTTPError.__bases__)
    failures: tuple[type[Exception], ...] = (OSError, ValueError, *bases)
    try:
        found = datasets.load_dataset(name, config, split=split)
    except failures as error:
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"{name!r} cannot be fetched from the hub: {why}") from error
    return {split: found} if split else dict(found)


def _write(folder: Path, splits: Mapping[str, Iterable[Mapping[str, Any]]]) -> None:
    """Write the splits into a new folder beside the target, then rename it into place."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        for name, rows in splits.items():
            with (work / f"{name}.jsonl").open("w", encoding="utf-8") as stream:
                for row in rows:
                    stream.write(json.dumps(plain(dict(row)), ensure_ascii=False) + "\n")
                stream.flush()
                os.fsync(stream.fileno())
        if folder.is_dir():
            for file in work.iterdir():  # splits that were fetched before and are not now stay
                file.replace(folder / file.name)
        else:
            work.chmod(0o755)
            work.rename(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
