"""Streams to shards: resumable after kill -9, the same bytes as without, other input refused."""

import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from isometry.encoders import Manifest, stream
from isometry.errors import DataFormatError, InputError, SpaceMismatch, StoreLocked
from isometry.types import FloatArray, Space


class Fake:
    """An encoder whose vectors are a function of the text, with a delay that makes room for a kill."""

    def __init__(self, delay: float = 0.0, dim: int = 4):
        self.space, self.delay, self.max_tokens = Space("fake", dim), delay, 64

    def room(self, role):
        return 64

    def count_tokens(self, texts):
        return np.array([len(t.split()) for t in texts], np.int64)

    def encode(self, texts, *, role, batch_size=32, report=lambda done: None, prompt=None) -> FloatArray:
        time.sleep(self.delay)
        report(len(texts))
        return np.array(
            [np.random.default_rng(len(t) + sum(map(ord, t))).random(self.space.dim) for t in texts], np.float32
        )


def items(n):
    return ((f"d{i}", f"text number {i}") for i in range(n))


def test_shards_hold_every_row_in_order(tmp_path):
    manifest = stream(Fake(), items(25), tmp_path, shard_size=10)
    assert [s.count for s in manifest.shards] == [10, 10, 5]
    assert manifest.complete
    ids = [i for part in Manifest.load(tmp_path) for i in part.ids]
    assert ids == [f"d{i}" for i in range(25)]
    (first, *_) = manifest
    np.testing.assert_array_equal(first.vectors, Fake().encode([t for _, t in items(10)], role="document"))
    assert stream(Fake(), items(25), tmp_path, shard_size=10) == manifest


def test_an_empty_stream_is_complete(tmp_path):
    assert stream(Fake(), [], tmp_path).count == 0


def test_other_input_space_or_size_is_refused(tmp_path):
    stream(Fake(), items(25), tmp_path, shard_size=10)
    with pytest.raises(InputError, match="shard 0"):
        stream(Fake(), ((i, t + "!") for i, t in items(25)), tmp_path, shard_size=10)
    with pytest.raises(InputError, match="more texts"):
        stream(Fake(), items(26), tmp_path, shard_size=10)
    with pytest.raises(InputError, match="10 rows"):
        stream(Fake(), items(25), tmp_path, shard_size=11)
    with pytest.raises(SpaceMismatch):
        stream(Fake(dim=5), items(25), tmp_path, shard_size=10)
    with pytest.raises(InputError, match="shard_size"):
        stream(Fake(), items(2), tmp_path / "x", shard_size=0)


def test_beginning_anew_leaves_nothing_of_the_earlier_run(tmp_path):
    stream(Fake(), items(25), tmp_path, shard_size=5)
    manifest = stream(Fake(dim=5), items(12), tmp_path, shard_size=10, resume=False)
    assert (manifest.count, manifest.space.dim) == (12, 5)
    assert sorted(path.name for path in tmp_path.glob("*.parquet")) == [shard.name for shard in manifest.shards]


def test_changed_bytes_are_noticed(tmp_path):
    manifest = stream(Fake(), items(25), tmp_path, shard_size=10)
    shard = tmp_path / manifest.shards[1].name
    shard.write_bytes(shard.read_bytes()[:-1] + b"\0")
    with pytest.raises(DataFormatError, match="shard-000001"):
        list(manifest)
    with pytest.raises(DataFormatError, match="shard-000001"):
        stream(Fake(), items(25), tmp_path, shard_size=10)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(DataFormatError, match="no readable manifest"):
        Manifest.load(tmp_path)


CHILD = """
import sys
sys.path.insert(0, {tests!r})
from test_streaming import Fake, items
from isometry.encoders import stream
stream(Fake(delay=0.02), items(400), {out!r}, shard_size=20)
"""


@pytest.mark.parametrize("seed", range(3))
def test_kill_9_loses_nothing_finished(tmp_path, seed):
    rng = random.Random(seed)
    code = CHILD.format(tests=os.path.dirname(__file__), out=str(tmp_path / "killed"))  # noqa: PTH120
    for _ in range(8):
        child = subprocess.Popen([sys.executable, "-c", code])
        time.sleep(0.5 + rng.random() * 0.5)
        child.send_signal(signal.SIGKILL)
        child.wait()
        if (tmp_path / "killed/manifest.json").exists():
            list(Manifest.load(tmp_path / "killed"))
    whole = stream(Fake(), items(400), tmp_path / "killed", shard_size=20)
    straight = stream(Fake(), items(400), tmp_path / "straight", shard_size=20)
    assert [s.input_sha256 for s in whole.shards] == [s.input_sha256 for s in straight.shards]
    for a, b in zip(whole, straight, strict=True):
        np.testing.assert_array_equal(a.vectors, b.vectors)
        assert a.ids.tolist() == b.ids.tolist()
    assert not list((tmp_path / "killed").glob("*.part"))


def test_one_writer_at_a_time(tmp_path):
    def within():
        with pytest.raises(StoreLocked, match="Another process"):
            stream(Fake(), items(3), tmp_path)
        yield from items(3)

    stream(Fake(), within(), tmp_path)
