"""Where a changed model is written: a folder that is there whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from isometry.errors import InputError
from isometry.files import make_folder


def save_model(model: Any, folder: Path) -> None:
    """Save a ``SentenceTransformer`` as safetensors, without the library's bars and without its card."""
    from isometry.training.fine_tuning import quiet

    with quiet():
        model.save_pretrained(str(folder), create_model_card=False)


def work_folder(out: Path) -> Path:
    """Return the folder beside ``out`` that keeps unfinished work."""
    return out.parent / f".{out.name}.unfinished"


def check_out(out: Path, *, fresh: bool = False) -> None:
    """Raise unless ``out`` may be written.

    Raises
    ------
    InputError
        If something is there, and is not an earlier model that ``fresh`` may replace.
    """
    if out.is_dir() and (not any(out.iterdir()) or (fresh and (out / "modules.json").is_file())):
        return
    if out.exists():
        hint = "it is not a model of this command" if fresh else "give another --out, or --fresh to replace it"
        raise InputError(f"{out} exists already; {hint}.")


@contextmanager
def replacing(out: Path) -> Iterator[Path]:
    """Yield a new folder that becomes ``out`` if all goes well, and is removed if not."""
    make_folder(out.parent)
    part = Path(mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        yield part
        part.chmod(0o755)
        if out.exists():
            old = Path(mkdtemp(prefix=f".{out.name}.old.", dir=out.parent))
            out.rename(old / "model")
            part.replace(out)
            shutil.rmtree(old)
        else:
            part.replace(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
