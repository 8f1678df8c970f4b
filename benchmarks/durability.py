"""Durability of a collection: kill -9 while it changes, damage on its disk, and how long it takes to open again.

    python benchmarks/durability.py --kills 200 --documents 100000

A child process adds, replaces, deletes, compacts and snapshots without end; it announces each change on a pipe before
it starts and acknowledges it after the commit. The parent kills it at a random moment, opens the collection and
compares *everything* with what was acknowledged: the change under way must be there whole or not at all.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from isometry.errors import StoreError
from isometry.store import Collection
from isometry.types import Document, Embeddings, Space, id_array

State = dict[str, int]  # id -> version of the document
SPACE = Space("toy", 32)
MOST = 1500  # documents from which on the child prefers to delete
CHECKED = 25  # documents looked up by word and by vector after each kill


def document(identity: str, version: int) -> Document:
    words = f"{word(identity, version)} " + "common filler text " * (1 + version % 40)
    return Document(identity, words, f"title {identity}", f"{identity}.md:1", {"version": version, "tags": ["t", "u"]})


def word(identity: str, version: int) -> str:
    return f"q{identity}v{version}"


def vector(identity: str, version: int) -> np.ndarray:
    values = np.random.default_rng(zlib.crc32(f"{identity}:{version}".encode())).normal(size=SPACE.dim)
    return (values / np.linalg.norm(values)).astype(np.float32)


def embeddings(state: State) -> Embeddings:
    rows = [vector(i, v) for i, v in state.items()] or np.empty((0, SPACE.dim))
    return Embeddings(np.asarray(rows, np.float32), id_array(state), SPACE)


# -- the child ------------------------------------------------------------------------------------------------------


def plan(rng: np.random.Generator, state: State) -> tuple[str, State]:
    """The next change: its kind, and the documents it writes or deletes."""
    choice = rng.random()
    if choice < 0.08:
        return "compact", {}
    if choice < 0.14:
        return "snapshot", {}
    if state and choice < (0.75 if len(state) > MOST else 0.35):
        chosen = rng.choice(sorted(state), size=min(len(state), int(rng.integers(1, 60))), replace=False)
        return "delete", dict.fromkeys(chosen.tolist(), 0)
    known = sorted(state)
    changed: State = {}
    for _ in range(int(rng.integers(1, 80))):
        identity = f"d{rng.integers(10**6)}" if not known or rng.random() < 0.7 else str(rng.choice(known))
        changed[identity] = int(rng.integers(1, 10**6))
    return "upsert", changed


def perform(collection: Collection, kind: str, items: State) -> None:
    if kind == "upsert":
        collection.upsert([document(i, v) for i, v in items.items()], embeddings(items))
    elif kind == "delete":
        collection.delete(list(items))
    elif kind == "compact":
        collection.compact()
    else:
        collection.snapshot()


def applied(state: State, kind: str, items: State) -> State:
    if kind == "delete":
        return {i: v for i, v in state.items() if i not in items}
    return {**state, **items}


def work(folder: Path, state: State, seed: int, pipe: int) -> None:
    """Change the collection until killed."""
    rng = np.random.default_rng(seed)
    with Collection.open(folder, write=True) as collection:
        while True:
            kind, items = plan(rng, state)
            os.write(pipe, (json.dumps([kind, items]) + "\n").encode())
            perform(collection, kind, items)
            os.write(pipe, b"done\n")
            state = applied(state, kind, items)


# -- the parent -----------------------------------------------------------------------------------------------------


def fork(task: Callable[[int], None]) -> tuple[int, int]:
    """Run ``task(pipe)`` in a child process; return its id and the end of the pipe to read."""
    inward, outward = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(inward)
        try:
            task(outward)
        except BaseException as error:
            os.write(outward, (json.dumps(["error", repr(error)]) + "\n").encode())
        os._exit(1)
    os.close(outward)
    return child, inward


def read_until(pipe: int, deadline: float) -> bytes:
    """What comes out of a pipe until a moment, or until its end."""
    import select

    parts = []
    while (left := deadline - time.monotonic()) > 0:
        ready, _, _ = select.select([pipe], [], [], left)
        if ready:
            part = os.read(pipe, 1 << 20)
            if not part:
                break
            parts.append(part)
    return b"".join(parts)


def run_and_kill(folder: Path, state: State, seed: int, delay: float) -> tuple[State, tuple[str, State] | None, int]:
    """Let a child work, kill it; return the acknowledged state, the change under way, how many were acknowledged."""
    child, pipe = fork(lambda out: work(folder, state, seed, out))
    text = os.read(pipe, 1 << 20)  # it is at work
    text += read_until(pipe, time.monotonic() + delay)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    text += read_until(pipe, time.monotonic() + 60)
    os.close(pipe)
    pending: tuple[str, State] | None = None
    acknowledged = 0
    for line in text.decode().split("\n")[:-1]:  # what follows the last line end was cut off by the kill
        if line == "done":
            assert pending is not None
            state, pending, acknowledged = applied(state, *pending), None, acknowledged + 1
        else:
            kind, items = json.loads(line)
            assert kind != "error", items
            pending = (kind, items)
    return state, pending, acknowledged


def check(folder: Path, states: list[State], rng: np.random.Generator) -> State:
    """Assert that the collection is exactly one of ``states``; return it."""
    with Collection.open(folder, write=True) as collection:
        there = {d.id: d for d in collection.iterate()}
        found = {i: int(d.payload["version"]) for i, d in there.items()}
        assert found in states, f"{len(found)} documents, expected {[len(s) for s in states]}"
        assert all(there[i] == document(i, v) for i, v in found.items()), "a document is not what was written"
        stored = collection.embeddings(ids=list(found))
        assert np.array_equal(stored.vectors, embeddings(found).vectors), "a vector is not what was written"
        report = collection.verify(repair=False)
        assert report.ok, report
        assert collection.count("version > 0 and tags = 'u'") == len(found)
        sample = dict.fromkeys(rng.permutation(sorted(found))[:CHECKED].tolist())
        chosen = {i: found[i] for i in sample}
        if chosen:
            words = [word(i, v) for i, v in chosen.items()]
            assert [r[0][0] for _, r in collection.bm25(words, 1)] == list(chosen), "not found by its word"
            nearest = collection.search(embeddings(chosen), 1)
            assert nearest.ids.tolist() == list(chosen), "not found by its vector"
        gone = [word(i, v) for state in states for i, v in state.items() if found.get(i) != v]
        assert not any(len(r) for _, r in collection.bm25(gone[:CHECKED], 1)), "found by a word that is gone"
    return found


def kills(folder: Path, times: int, seed: int) -> dict[str, Any]:
    """Kill the writer again and again; every loss is an AssertionError."""
    rng = np.random.default_rng(seed)
    Collection.create(folder, SPACE).close()
    state: State = {}
    under_way: Counter[str] = Counter()
    commits = survived = 0
    reopening = []
    for turn in range(times):
        state, pending, acknowledged = run_and_kill(folder, state, seed + turn, float(rng.uniform(0, 0.15)))
        states = [state] if pending is None else [state, applied(state, *pending)]
        start = time.perf_counter()
        Collection.open(folder).close()
        reopening.append(time.perf_counter() - start)
        before, state = state, check(folder, states, rng)
        under_way[pending[0] if pending else "between two"] += 1
        survived += pending is not None and pending[0] in ("upsert", "delete") and state != before
        commits += acknowledged
    return {
        "kills": times,
        "acknowledged_changes": commits,
        "lost": 0,
        "half_written": 0,
        "killed_during": dict(sorted(under_way.items())),
        "committed_but_not_yet_acknowledged": survived,
        "documents_at_the_end": len(state),
        "reopen_after_kill_ms_median": round(1e3 * float(np.median(reopening)), 2),
        "reopen_after_kill_ms_max": round(1e3 * max(reopening), 2),
    }


# -- damage ---------------------------------------------------------------------------------------------------------


def fill(folder: Path, n: int) -> State:
    state = {f"d{i}": i + 1 for i in range(n)}
    with Collection.create(folder, SPACE) as collection:
        collection.upsert([document(i, v) for i, v in state.items()], embeddings(state))
        collection.snapshot()
    return state


def harm(path: Path, rng: np.random.Generator) -> str:
    """Flip one bit of a file, or cut it short."""
    size = path.stat().st_size
    if rng.random() < 0.3:
        os.truncate(path, int(rng.integers(0, size)))
        return "truncated"
    with path.open("r+b") as stream:
        stream.seek(int(rng.integers(0, size)))
        byte = stream.read(1)[0]
        stream.seek(-1, os.SEEK_CUR)
        stream.write(bytes([byte ^ (1 << int(rng.integers(8)))]))
    return "bit flipped"


def harm_snapshots(folder: Path, times: int, seed: int) -> dict[str, int]:
    """Damage files of the snapshot: answers must stay the same, and verify must make the snapshot anew."""
    rng = np.random.default_rng(seed)
    state = fill(folder, 300)
    queries = embeddings({i: state[i] for i in list(state)[:20]})
    with Collection.open(folder) as collection:
        expected = collection.search(queries, 5).to_run()
    outcome: Counter[str] = Counter()
    for _ in range(times):
        path = rng.choice([p for p in sorted((folder / "snapshots").rglob("*")) if p.is_file()])
        outcome[harm(Path(path), rng)] += 1
        with Collection.open(folder, write=True) as collection:
            assert collection.search(queries, 5).to_run() == expected
            seen = [c for c in collection.verify().checks if c.repaired]
            outcome["rebuilt"] += len(seen)
            assert collection.verify().ok
    return dict(outcome)


def read_all(folder: Path) -> tuple[Any, ...]:
    with Collection.open(folder) as collection:
        found = collection.embeddings()
        return list(collection.iterate()), found.ids.tolist(), found.vectors.tobytes(), collection.spaces


def harm_database(folder: Path, times: int, seed: int) -> dict[str, int]:
    """Damage the database: what is read must be what was written, or an error; never something else."""
    rng = np.random.default_rng(seed)
    fill(folder, 300)
    shutil.rmtree(folder / "snapshots")
    expected = read_all(folder)
    pristine = (folder / "collection.sqlite").read_bytes()
    outcome: Counter[str] = Counter()
    for _ in range(times):
        for old in folder.glob("collection.sqlite*"):
            old.unlink()
        database = folder / "collection.sqlite"
        database.write_bytes(pristine)
        kind = harm(database, rng)
        try:
            assert read_all(folder) == expected, f"{kind}: something else was read"
            with Collection.open(folder, write=True) as collection:
                sound = collection.verify(repair=False).ok
            outcome[f"{kind}: read in full, verify {'finds nothing' if sound else 'reports it'}"] += 1
        except StoreError as error:
            outcome[f"{kind}: {type(error).__name__}"] += 1
        assert database.exists()
    return dict(sorted(outcome.items()))


# -- speed ----------------------------------------------------------------------------------------------------------


def timed(action: Callable[[], Any]) -> float:
    start = time.perf_counter()
    action()
    return round(1e3 * (time.perf_counter() - start), 1)


def large(folder: Path, n: int) -> dict[str, Any]:
    """Milliseconds to open and to answer with ``n`` documents of 384 numbers."""
    space, rng = Space("toy", 384), np.random.default_rng(0)
    words = np.asarray([f"w{i}" for i in range(20_000)])

    def batches() -> Iterator[tuple[list[Document], Embeddings]]:
        for start in range(0, n, 5000):
            ids = [f"d{i}" for i in range(start, min(n, start + 5000))]
            x = rng.normal(size=(len(ids), 384)).astype(np.float32)
            x /= np.linalg.norm(x, axis=1, keepdims=True)
            texts = [" ".join(rng.choice(words, 40)) for _ in ids]
            items = [
                Document(i, t, payload={"year": 2000 + j % 25}) for j, (i, t) in enumerate(zip(ids, texts, strict=True))
            ]
            yield items, Embeddings(x, id_array(ids), space)

    collection = Collection.create(folder, space)
    spent = 0.0
    for items, vectors in batches():
        spent += timed(lambda items=items, vectors=vectors: collection.upsert(items, vectors))
    query = vectors.take([0])
    figures: dict[str, Any] = {"documents": n, "dim": 384, "upsert_documents_per_second": round(n / spent * 1e3)}
    collection.close()
    figures["open_ms"] = timed(lambda: Collection.open(folder).close())
    with Collection.open(folder, write=True) as collection:
        figures["first_search_from_database_ms"] = timed(lambda: collection.search(query, 10, exact=True))
        figures["write_exact_snapshot_ms"] = timed(lambda: collection.snapshot(graph=False))
    with Collection.open(folder) as collection:
        figures["first_search_from_snapshot_ms"] = timed(lambda: collection.search(query, 10, exact=True))
        warm = [timed(lambda: collection.search(query, 10, exact=True)) for _ in range(9)]
        figures["warm_search_ms_median"] = sorted(warm)[4]
        warm = [timed(lambda: collection.search(query, 10, "year = 2003", exact=True)) for _ in range(9)]
        figures["warm_filtered_search_ms_median"] = sorted(warm)[4]
        warm = [timed(lambda: collection.bm25(["w1 w2 w3 w4"], 10)) for _ in range(9)]
        figures["warm_bm25_ms_median"] = sorted(warm)[4]
    figures["database_mb"] = round((folder / "collection.sqlite").stat().st_size / 1e6, 1)
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--damages", type=int, default=100, help="of the snapshots, and as many of the database")
    parser.add_argument("--documents", type=int, default=100_000, help="for the timings; 0 leaves them out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "figures" / "durability.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        figures: dict[str, Any] = {"kill": kills(root / "killed", options.kills, options.seed)}
        if options.damages:
            figures["damaged_snapshots"] = harm_snapshots(root / "snapshots", options.damages, options.seed)
            figures["damaged_database"] = harm_database(root / "database", options.damages, options.seed)
        if options.documents:
            figures["large"] = large(root / "large", options.documents)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(figures, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
