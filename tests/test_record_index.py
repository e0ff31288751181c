"""The index of records: never the truth, only quicker than it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bench import record_index, store
from bench.contract.record import Result
from bench.publish.tables import build, render
from bench.store import Store
from benchmarks import many_records

_READER = """
import sys
from pathlib import Path
from bench import record_index
from bench.store import Store
record_index.SETTLED_NS, record_index.WORTH = 0, 1
for _ in range(15):
    store = Store(Path(sys.argv[1]))
    records = list(store.all())
    assert not store.problems, store.problems
    assert all(r.metrics["same"] == r.duration_s for r in records), "a figure of another record"
print(len(records))
"""


@pytest.fixture
def results(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Records of a suite on two devices, older than the clock's resolution; the index is written for any."""
    assert cache.is_dir()
    many_records.make(tmp_path / "results", tmp_path, 200, suites=1)
    monkeypatch.setattr(record_index, "SETTLED_NS", 0)
    monkeypatch.setattr(record_index, "WORTH", 1)
    return tmp_path / "results"


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The record files that were read and validated, as it happens."""
    paths: list[Path] = []
    parsed = store.parsed

    def counted(path: Path, text: bytes) -> Result:
        paths.append(path)
        return parsed(path, text)

    monkeypatch.setattr(store, "parsed", counted)
    return paths


def _files(root: Path) -> list[Path]:
    return sorted(root.rglob("r*.json"))


def _from_files(root: Path) -> list[Result]:
    """In the order of their paths, without an index."""
    own = Store(root)
    return [result for path in _files(root) if (result := own.get(path)) is not None]


def _tables(root: Path) -> Iterator[str]:
    """A table in all its forms."""
    table = build.build(Store(root).all())
    yield from (render.render(table, form, 120) for form in ("terminal", "md", "csv", "json"))


def test_tables_are_the_same_with_an_index(results: Path, opened: list[Path]) -> None:
    """Every form of a table is the same, byte for byte, and no record is opened the second time."""
    first = list(_tables(results))
    assert len(opened) == len(_files(results))
    opened.clear()
    assert list(_tables(results)) == first
    assert opened == []
    by_path = sorted(_from_files(results), key=lambda r: (r.hardware.slug, r.suite, r.started))
    assert sorted(Store(results).all(), key=lambda r: (r.hardware.slug, r.suite, r.started)) == by_path


@pytest.mark.parametrize("edit", ["in place", "replaced", "deleted", "added"])
def test_an_entry_of_another_file_is_not_used(results: Path, opened: list[Path], edit: str) -> None:
    """What was edited, replaced, deleted or added since is shown as it is now.

    Even at the same size, in place, with the times that `touch` can set as they were.
    """
    list(Store(results).all())
    file = _files(results)[7]
    text, before = file.read_bytes(), file.stat()
    other = text.replace(b'"cpu": "a CPU"', b'"cpu": "B CPU"')
    assert len(other) == len(text)
    assert other != text
    if edit == "in place":
        file.write_bytes(other)
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    elif edit == "replaced":
        (file.parent / "new").write_bytes(other)
        (file.parent / "new").replace(file)
    elif edit == "deleted":
        file.unlink()
    else:
        (file.parent / "r9.json").write_bytes(other)
    opened.clear()
    records = list(Store(results).all())
    assert opened == {"deleted": [], "added": [file.parent / "r9.json"]}.get(edit, [file])
    assert [r.hardware.cpu for r in records].count("B CPU") == (edit != "deleted")
    assert {r.digest for r in records} == {r.digest for r in _from_files(results)}


def test_a_file_that_was_just_written_is_not_indexed(
    results: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An edit of the same size within the resolution of the file system's clock would leave no trace."""
    monkeypatch.setattr(record_index, "SETTLED_NS", 3600 * 10**9)
    list(Store(results).all())
    assert not list(cache.rglob("records/*/*"))
    monkeypatch.undo()
    assert record_index.SETTLED_NS > 2 * 10**9, "FAT keeps times to two seconds"


@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied", "folder", "of other sources"])
def test_a_damaged_index_is_made_anew(
    results: Path, cache: Path, opened: list[Path], damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shard that is cut, altered, or written by another version is read as none, and written again."""
    before = list(Store(results).all())
    shards = list(cache.rglob("records/*/*.json"))
    assert shards
    for shard in shards:
        text = shard.read_bytes()
        if damage == "cut":
            shard.write_bytes(text[: len(text) // 2])
        elif damage == "flipped":
            shard.write_bytes(text.replace(b"0.01", b"0.02"))
        elif damage == "emptied":
            shard.write_bytes(b"")
        elif damage == "folder":
            shard.unlink()
            shard.mkdir()
    if damage == "of other sources":
        monkeypatch.setattr(record_index, "_sources", lambda: b"another version")
    opened.clear()
    assert list(Store(results).all()) == before
    assert len(opened) == len(before)
    opened.clear()
    assert list(Store(results).all()) == before
    assert len(opened) == (len(before) if damage == "folder" else 0)


def test_what_the_index_cannot_hold_is_read_each_time(results: Path, opened: list[Path]) -> None:
    """A number of more than 64 bits is shown as its file has it: its record is in no index, the others are."""
    file = _files(results)[3]
    before, facts, after = file.read_bytes().rpartition(b'"facts": {')
    file.write_bytes(before + facts + b'"odd": 1' + 30 * b"0" + b"," + after)
    list(Store(results).all())
    opened.clear()
    assert [r.facts["odd"] for r in Store(results).all() if "odd" in r.facts] == [10**30]
    assert opened == [file]


def test_rounds_of_a_plan_are_found_as_one_by_one(results: Path, opened: list[Path]) -> None:
    """`find_all` gives what `find` gives, in order, None where there is no record, and fills the index too."""
    own = Store(results)
    alike = [*own.all(), replace(next(own.all()), round=99)]
    expected = [own.find(like) for like in alike]
    assert expected[-1] is None
    assert list(own.find_all(alike)) == expected
    opened.clear()
    assert list(Store(results).find_all(reversed(alike))) == expected[::-1]
    assert opened == []


def test_records_are_read_where_the_cache_cannot_be_written(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache that is a file costs the index and nothing else."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LLM_BENCH_CACHE", str(tmp_path / "file"))
    assert len(list(Store(results).all())) == len(_files(results))


@pytest.mark.slow
def test_readers_and_writers_at_once_see_whole_records(results: Path, cache: Path) -> None:
    """Three processes read and index what a fourth replaces: each record they see is one that was written."""
    own = Store(results)
    records = list(own.all())[:40]
    for path in _files(results):
        path.unlink()

    def write(number: int) -> None:
        for result in records:
            own.put(replace(result, metrics={**result.metrics, "same": float(number)}, duration_s=float(number)))

    write(0)
    env = {**os.environ, "LLM_BENCH_CACHE": str(cache)}
    argv = [sys.executable, "-c", _READER, str(results)]
    readers = [subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    number = 0
    while any(reader.poll() is None for reader in readers):
        write(number := number + 1)
    assert [reader.communicate()[0].strip() for reader in readers] == ["40"] * 3
    assert [reader.returncode for reader in readers] == [0] * 3
    assert number > 1
    assert {r.duration_s for r in Store(results).all()} == {float(number)}


@pytest.mark.slow
def test_a_record_costs_the_same_among_many(tmp_path: Path, cache: Path) -> None:
    """CPU time per record of a table, from files and from the index, at 2,000 and at 8,000 records: linear."""
    assert cache.is_dir()
    costs: dict[str, list[float]] = {"files": [], "index": []}
    for count in (2000, 8000):
        results = tmp_path / str(count)
        written_records = many_records.make(results, tmp_path, count)
        time.sleep(record_index.SETTLED_NS / 1e9)
        for source in ("files", "index"):
            began = time.process_time()
            assert len(list(_tables(results))) == 4
            costs[source].append((time.process_time() - began) / written_records)
    for source, (few, many) in costs.items():
        assert many < 2 * few, f"{source}: {1e6 * few:.0f} and {1e6 * many:.0f} microseconds a record"
