"""A suite as nodes read it, and what travels of a cache."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from bench.contract import wire
from bench.contract.errors import CellError
from bench.fleet import portable, returned, transfer
from bench.fleet.transfer import REFERENCES, CacheFolder
from bench.run import plan
from bench.store import Store
from tests.run import fake_runs


def test_files_of_this_machine_have_their_whole_path_and_shipped_ones_their_name(tmp_path: Path) -> None:
    """A node finds the first in a folder that all share, the second in the code that travels with the run."""
    text = tmp_path / "text.txt"
    text.write_text("one two three " * 400)
    tasks = [{"task": "perplexity", "corpus": f"path:{text}", "context": 32, "tokens": 64}]
    given = fake_runs.suite(tasks=tasks)
    sent = portable.suite(given)

    assert sent.model.source == "models/demo"
    assert sent.tasks[0].options["corpus"] == f"path:{text}"


def test_a_relative_path_becomes_the_drivers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node's working folder is another."""
    (tmp_path / "text.txt").write_text("one two three " * 400)
    monkeypatch.chdir(tmp_path)
    tasks = [{"task": "perplexity", "corpus": "path:text.txt", "context": 32, "tokens": 64}]
    sent = portable.suite(fake_runs.suite(tasks=tasks))

    assert sent.tasks[0].options["corpus"] == f"path:{tmp_path / 'text.txt'}"


def test_the_sent_suite_has_the_digests_of_the_given_one(tmp_path: Path) -> None:
    """How a file is named is no part of a digest."""
    text = tmp_path / "text.txt"
    text.write_text("one two three " * 400)
    given = fake_runs.suite(tasks=[{"task": "perplexity", "corpus": f"path:{text}", "context": 32, "tokens": 64}])

    digests = [[item.digest for item in plan.plan(its, fetch=False).items] for its in (given, portable.suite(given))]
    assert digests[0] == digests[1]


def test_a_folder_of_the_cache_travels_in_pieces_that_add_up(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each at most so long, the last of a file with its hash; an empty file too."""
    monkeypatch.setattr(transfer, "_PIECE_BYTES", 1000)
    folder = cache / "references" / "abc"
    folder.mkdir(parents=True)
    files = {"big.bin": bytes(range(256)) * 10, "empty.bin": b""}
    for name, data in files.items():
        (folder / name).write_bytes(data)
    sizes = {name: len(data) for name, data in files.items()}
    wire.write(folder / "reference.json", wire.dumps({"digest": "abc", "files": sizes}))
    pieces = list(transfer.pieces(CacheFolder(REFERENCES, "abc")))

    assert max(len(piece.data) for piece in pieces) <= 1000
    for name, data in files.items():
        own = [piece for piece in pieces if piece.name == name]
        assert b"".join(piece.data for piece in own) == data
        assert [piece.sha256 for piece in own] == [""] * (len(own) - 1) + [hashlib.sha256(data).hexdigest()]


def test_a_folder_that_is_not_whole_does_not_travel(cache: Path) -> None:
    """What another node asks for may have been deleted meanwhile."""
    (cache / "references" / "abc").mkdir(parents=True)

    assert transfer.present([CacheFolder(REFERENCES, "abc")]) == []
    with pytest.raises(CellError, match="not here any more"):
        next(transfer.pieces(CacheFolder(REFERENCES, "abc")))


def test_returned_records_are_those_that_were_sent(cache: Path, tmp_path: Path) -> None:
    """Byte for byte, each with its attachments; what is recorded of an artifact is left as it is."""
    del cache
    there, here = Store(tmp_path / "there"), Store(tmp_path / "here")
    tasks = [{"task": "perplexity", "corpus": "stdlib", "context": 32, "tokens": 64}]
    fake_runs.run(fake_runs.suite(tasks=tasks), there)
    files = {str(f.relative_to(there.root)): f.read_bytes() for f in there.root.rglob("*") if f.is_file()}
    first = returned.put(here, files, is_home=True)
    artifact = next(name for name in files if "/artifacts/" in name)
    again = returned.put(
        here, {**files, artifact: files[artifact].replace(b'"duration_s"', b'"duration_s" ')}, is_home=True
    )

    assert [record.cell.measurement for record in first] == [record.cell.measurement for record in again]
    assert (here.root / artifact).read_bytes() == files[artifact]
    for name, data in files.items():
        if not name.endswith("machine.json") and not name.startswith("."):
            assert (here.root / name).read_bytes() == data
