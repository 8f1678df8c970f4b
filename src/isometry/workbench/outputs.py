"""Where a changed model is written: a folder that is there whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from isometry.errors import InputError, IsometryError
from isometry.files import make_folder, write_whole

_LOCK, _REPLACED = "lock", "replaced"
# How the libraries below say that a file could not be written.
_FULL = ("No space left", "PytorchStreamWriter", "unexpected pos")
_STATES = ("checkpoint-*", "step-*")  # what a run can go on from


class OutputBusy(IsometryError):
    """Another process is writing there."""


class DiskFull(IsometryError):
    """There is no room for what is to be written."""


def save_model(model: Any, folder: Path) -> None:
    """Save a ``SentenceTransformer`` as safetensors, without the library's bars and without its card."""
    from isometry.modules.quiet import quiet

    with quiet():
        model.save_pretrained(str(folder), create_model_card=False)


def work_folder(out: Path) -> Path:
    """Return the folder beside ``out`` that keeps unfinished work."""
    return out.parent / f".{out.name}.unfinished"


def check_out(out: Path, *, fresh: bool = False, sources: Sequence[str] = ()) -> None:
    """Raise unless ``out`` may be written.

    Parameters
    ----------
    sources
        The models it is made from; none of them may be what is replaced.

    Raises
    ------
    InputError
        If something is there, and is not an earlier model that ``fresh`` may replace.
    """
    if out.name in ("", ".."):
        raise InputError(f"--out must name the folder to make, got {str(out)!r}.")
    if out.exists() and any(Path(source).expanduser().resolve() == out.resolve() for source in sources):
        raise InputError(f"{out} is a model this command reads; give another --out.")
    if out.is_dir() and (not any(out.iterdir()) or (fresh and (out / "isometry.json").is_file())):
        return
    if out.exists():
        hint = "it is not a model of this command" if fresh else "give another --out, or --fresh to replace it"
        raise InputError(f"{out} exists already; {hint}.")


@contextmanager
def working(out: Path, *, fresh: bool = False) -> Iterator[Path]:
    """Yield `work_folder`, held by this process alone; it is gone at the end unless a run can go on from it.

    Raises
    ------
    OutputBusy
        If another process holds it.
    DiskFull
        If something could not be written for want of room.
    """
    folder = make_folder(work_folder(out))
    with (folder / _LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputBusy(f"Another process is writing {out}; let it finish, or give another --out.") from None
        if (folder / _REPLACED).exists() and not out.exists():  # killed between two renames
            (folder / _REPLACED).rename(out)
        for path in folder.iterdir():
            if path.name != _LOCK and (fresh or path.name.startswith("model-") or path.name == _REPLACED):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        keep = False
        try:
            yield folder
        except BaseException as error:
            keep = any(next(folder.rglob(pattern), None) for pattern in _STATES)
            if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or any(w in str(error) for w in _FULL):
                raise DiskFull(
                    f"There is no room left to write {out}; make some, and run the command again."
                ) from error
            raise
        finally:
            if not keep:
                shutil.rmtree(folder, ignore_errors=True)


def check_work(folder: Path, about: Mapping[str, Any]) -> None:
    """Raise an `InputError` if the unfinished work of ``folder`` is not what ``about`` says; write it where none is."""
    from isometry.training.checkpoints import same_run

    kept, wanted = folder / "about.json", json.loads(json.dumps(dict(about)))
    found = json.loads(kept.read_text()) if kept.is_file() else wanted
    same_run(folder, wanted, found)
    write_whole(kept, json.dumps(wanted).encode())


@contextmanager
def replacing(out: Path) -> Iterator[Path]:
    """Yield a new folder that becomes ``out`` if all goes well, and is removed if not; for use inside `working`."""
    part = Path(mkdtemp(prefix="model-", dir=make_folder(work_folder(out))))
    try:
        yield part
        part.chmod(0o755)
        if out.exists():
            out.rename(work_folder(out) / _REPLACED)
            part.replace(out)
            shutil.rmtree(work_folder(out) / _REPLACED)
        else:
            part.replace(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
