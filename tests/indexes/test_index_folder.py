import json

import numpy as np
import pytest

from isometry.errors import CorruptStore, StoreVersion
from isometry.indexes import folder as module
from isometry.indexes.folder import Folder, array, text, write_folder


def write(path, value):
    write_folder(path, "toy", {"value": value}, {"a.npy": array(np.full(3, value)), "b.txt": text(str(value))})


def read(path):
    folder = Folder.open(path, "toy")
    assert folder.text("b.txt") == str(folder.facts["value"])
    assert (folder.array("a.npy") == folder.facts["value"]).all()
    return folder.facts["value"]


def test_round_trip_and_overwrite(tmp_path):
    write(tmp_path, 1)
    assert read(tmp_path) == 1
    write(tmp_path, 2)
    assert read(tmp_path) == 2
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("step", range(1, 10))
def test_a_crash_at_any_sync_leaves_the_old_or_the_new(tmp_path, monkeypatch, step):
    """Each step is an fsync of a file or of the folder; a crash there must never leave a mixture."""
    write(tmp_path, 1)
    real, calls = module.os.fsync, []

    def crash(handle):
        calls.append(handle)
        if len(calls) == step:
            raise KeyboardInterrupt
        real(handle)

    monkeypatch.setattr(module.os, "fsync", crash)
    try:
        write(tmp_path, 2)
    except KeyboardInterrupt:
        assert read(tmp_path) in (1, 2)
    else:
        assert step > len(calls)
        assert read(tmp_path) == 2
    monkeypatch.undo()
    write(tmp_path, 3)
    assert read(tmp_path) == 3
    assert len(list(tmp_path.iterdir())) == 3  # what the crash left behind is swept up


def test_files_of_others_are_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "my.abcdefghijklmnop.txt").write_text("mine too")
    write(tmp_path, 1)
    write(tmp_path, 2)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert (tmp_path / "my.abcdefghijklmnop.txt").read_text() == "mine too"


def test_a_newer_format_and_a_mangled_manifest(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "FORMAT", 2)
    write(tmp_path, 1)
    monkeypatch.undo()
    with pytest.raises(StoreVersion, match="newer"):
        read(tmp_path)
    write(tmp_path, 1)
    manifest = tmp_path / "manifest.json"
    sealed = json.loads(manifest.read_text())
    sealed["manifest"]["facts"]["value"] = 7
    for broken in (json.dumps(sealed), "{}", "", "[]", "\x00"):
        manifest.write_text(broken)
        with pytest.raises(CorruptStore, match="manifest"):
            read(tmp_path)
