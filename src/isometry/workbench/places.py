"""Where things live on this computer: settings, collections by name, the embedding cache."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from isometry.errors import DataFormatError, InputError, UnknownName
from isometry.files import write_whole

MODES = ("hybrid", "vector", "keyword", "late")
BUILTIN = "papers"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class Settings:
    """What can be configured; every command line flag of the same name goes before it."""

    model: str = "minilm"
    engine: str = "fast"
    collection: str = BUILTIN
    mode: str = "hybrid"
    k: int = 10
    data_root: str = ""


def home() -> Path:
    """Folder of everything kept: ``$ISOMETRY_HOME``, else the user's data folder of this system."""
    if named := os.environ.get("ISOMETRY_HOME"):
        return Path(named).expanduser()
    import platformdirs

    return Path(platformdirs.user_data_dir("isometry"))


def settings_file() -> Path:
    """The settings, as TOML."""
    return home() / "config.toml"


def settings() -> Settings:
    """Return the settings in force.

    Raises
    ------
    DataFormatError
        If the file is not TOML or holds an unknown key or a value of the wrong type.
    """
    path = settings_file()
    if not path.is_file():
        return Settings()
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataFormatError(
            path, None, f"the settings are not valid TOML ({error}); mend or delete the file."
        ) from error
    try:
        return _checked(values)
    except InputError as error:
        raise DataFormatError(path, None, f"{error} Mend it, or delete the file.") from error


def _checked(values: Mapping[str, Any]) -> Settings:
    kinds = {f.name: type(f.default) for f in fields(Settings)}
    for name, value in values.items():
        if name not in kinds:
            raise UnknownName("setting", name, kinds)
        if not isinstance(value, kinds[name]):
            raise InputError(f"The setting {name!r} must be {kinds[name].__name__}, got {value!r}.")
    checked = replace(Settings(), **values)
    if checked.mode not in MODES:
        raise UnknownName("mode", checked.mode, MODES)
    if checked.k < 1:
        raise InputError(f"The setting 'k' must be at least 1, got {checked.k}.")
    return checked


def set_setting(name: str, value: str | None) -> Settings:
    """Write one setting (None: back to its default) and return the settings now in force."""
    current = settings()
    known = {f.name: f for f in fields(Settings)}
    if name not in known:
        raise UnknownName("setting", name, known)
    default: str | int = getattr(Settings(), name)
    try:
        parsed: str | int = default if value is None else int(value) if isinstance(default, int) else value
    except ValueError as error:
        raise InputError(f"The setting {name!r} must be {type(default).__name__}, got {value!r}.") from error
    changed = _checked({**asdict(current), name: parsed})
    lines = [f"{key} = {_toml(v)}\n" for key, v in asdict(changed).items() if v != known[key].default]
    path = settings_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, "".join(lines).encode())
    return changed


def _toml(value: str | int) -> str:
    if isinstance(value, int):
        return str(value)
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    if any(ord(c) < 32 for c in value):
        raise InputError(f"A setting cannot hold control characters, got {value!r}.")
    return f'"{escaped}"'


def collection_path(name: str) -> Path:
    """Return the folder of a collection: a path is taken as it stands, a name lies under `home`.

    Raises
    ------
    InputError
        If a name holds characters other than letters, digits, dot, dash and underscore.
    """
    if "/" in name or "\\" in name or name in (".", "..") or name.startswith("~"):
        return Path(name).expanduser()
    if not _NAME.fullmatch(name):
        raise InputError(
            f"A collection's name has letters, digits, '.', '-' and '_' only, at most 100, got {name[:120]!r}; "
            "give a path (with a slash) to keep it elsewhere."
        )
    return home() / "collections" / name


def collection_names() -> list[str]:
    """Names of the collections under `home`."""
    folder = home() / "collections"
    if not folder.is_dir():
        return []
    return sorted(p.name for p in folder.iterdir() if (p / "collection.sqlite").is_file())


def cache_folder() -> Path:
    """Folder for what can be computed again."""
    if os.environ.get("ISOMETRY_HOME"):
        return home() / "cache"
    import platformdirs

    return Path(platformdirs.user_cache_dir("isometry"))


__all__ = [
    "BUILTIN",
    "MODES",
    "Settings",
    "cache_folder",
    "collection_names",
    "collection_path",
    "home",
    "set_setting",
    "settings",
    "settings_file",
]
