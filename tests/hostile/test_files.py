"""Files that are no files: pipes, folders, links in a circle, and headers without end. None hangs a reader."""

from __future__ import annotations

import gzip
import json
import os
import struct
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from bench.contract.errors import UserError
from bench.contract.spec import Model
from bench.formats import folder as model_folder
from bench.formats import gguf_reader
from bench.models import resolve
from bench.store import Store
from tests.test_store import TRACES, served


def _circle(path: Path) -> None:
    path.symlink_to(path.name)


_NO_FILES: dict[str, Callable[[Path], None]] = {"pipe": os.mkfifo, "folder": Path.mkdir, "circle": _circle}


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("kind", _NO_FILES)
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "model.safetensors.index.json", "m.gguf"])
def test_a_model_folder_with_one_is_a_sentence(tmp_path: Path, name: str, kind: str) -> None:
    """Whichever file of the model it stands for."""
    (folder := tmp_path / "m").mkdir()
    (folder / "config.json").write_text("{}")
    if name != "m.gguf":
        save_file({"layer.weight": np.zeros((4, 4), np.float16)}, folder / "model.safetensors")
    (folder / name).unlink(missing_ok=True)
    _NO_FILES[kind](folder / name)
    began = time.process_time()

    if name == "model.safetensors.index.json":  # it is no index, and the model is one without
        assert model_folder.weight_files(folder) == (folder / "model.safetensors",)
    else:
        with pytest.raises(UserError):
            resolve.resolve(Model(str(folder)), fetch=False)
    assert time.process_time() - began < 2


@pytest.mark.parametrize("kind", _NO_FILES)
def test_a_record_that_is_one_is_named_and_skipped(tmp_path: Path, kind: str) -> None:
    """The other records are read; its requests are damaged, or none."""
    store = Store(tmp_path)
    good, bad = store.put(served(), TRACES), store.path(served(1))
    _NO_FILES[kind](bad)
    (good.parent / "loop").symlink_to("..")
    _NO_FILES[kind](good.with_name("r0.items.jsonl.gz"))

    assert list(store.all()) == [served()]
    assert len(store.problems) == (kind != "folder")  # a folder of that name is no record
    with pytest.raises(UserError, match=r"r1\.json cannot be read: .*; move it away"):
        store.get(bad)
    with pytest.raises(UserError, match=r"r0\.items\.jsonl\.gz is damaged"):
        store.items(good)


@pytest.mark.parametrize("kind", ["pipe", "circle"])
def test_a_description_of_the_machine_that_is_one_is_replaced(tmp_path: Path, kind: str) -> None:
    """A record is put, and machine.json is a file again; so it is where its bytes were no text."""
    store = Store(tmp_path)
    machine = store.put(served()).parents[6] / "machine.json"
    whole = machine.read_bytes()
    machine.write_bytes(b"\xff")
    store.put(served())
    assert machine.read_bytes() == whole
    machine.unlink()
    _NO_FILES[kind](machine)
    store.put(served())
    assert machine.read_bytes() == whole


@pytest.mark.parametrize(
    ("place", "text", "sentence"),
    [
        ("metrics", '{"ttft_s": 1e999}', "ttft_s is not a finite number"),
        ("metrics", '{"other": 1e308}', "a number in it is beyond 1e100"),
        ("metrics", '{"ttft_s": Infinity}', "ttft_s is not a finite number"),
        ("facts", '{"a": {"b": [1, NaN]}}', "a number in it is beyond 1e100"),
        ("facts", '{"a": ' + "9" * 400 + "}", "a number in it is beyond 1e100|JSON"),
        ("facts", '{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", "recursion|nested"),
        ("facts", '{"window_s": "long"}', "facts.window_s: expected a number"),
        ("facts", '{"window_s": null}', "facts.window_s: expected a number"),
        ("facts", '{"stages": [{"metrics": {}}]}', "facts.stages: expected a list of objects"),
        (
            "facts",
            '{"stages": [{"level": 1, "metrics": {}}], "chosen": 7}',
            "facts.chosen: expected the place of a stage",
        ),
        ("facts", '{"architecture": {"layers": 1}}', "facts.architecture.hidden"),
        ("facts", '{"ceiling": {"measured": {"bandwidth": []}}}', "facts.ceiling.measured"),
        ("facts", '{"energy_window": 5}', "facts.energy_window: expected an object"),
    ],
)
def test_numbers_and_facts_that_nothing_can_compute_with_are_refused(
    tmp_path: Path, place: str, text: str, sentence: str
) -> None:
    """Infinite or all but, nested without end, or of another type than tables compute from."""
    store = Store(tmp_path)
    path = store.put(served())
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, place: "HERE"}).replace('"HERE"', text))

    with pytest.raises(UserError, match=rf"r0\.json (is not a record|has figures .*): .*({sentence}).*; move it"):
        store.get(path)


def test_a_number_in_a_text_is_a_text(tmp_path: Path) -> None:
    """A reason may quote what a record may not hold."""
    store = Store(tmp_path)
    path = store.put(served())
    path.write_text(path.read_text().replace('"2026-11-22"', '"loss: 1e999"'))

    assert store.get(path) is not None


def test_a_small_file_that_unpacks_to_gigabytes_is_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more than the limit of it is ever in memory."""
    monkeypatch.setattr("bench.store._MAX_UNPACKED", 1 << 20)
    store = Store(tmp_path)
    path = store.put(served(), TRACES)
    path.with_name("r0.traces.jsonl.gz").write_bytes(gzip.compress(bytes(8 << 20)))

    with pytest.raises(UserError, match=r"traces\.jsonl\.gz is damaged"):
        store.traces(path)


def _key(name: bytes, kind: int, value: bytes) -> bytes:
    return struct.pack("<Q", len(name)) + name + struct.pack("<I", kind) + value


_TEXT = [_key(b"s", 8, struct.pack("<Q", 30 << 20)), 30 << 20]


@pytest.mark.parametrize(
    ("tensors", "pairs", "content", "sentence"),
    [
        (0, 3_000_000, [13 * 3_000_000], "its header has 3000000 keys and 0 tensors"),
        (2**40, 1, [], "and no model's has so many"),
        (0, 1, [_key(b"t", 9, struct.pack("<IQ", 8, 2**60)), 90_000_000], "more than 10000000 entries"),
        (0, 1, [_key(b"n", 9, struct.pack("<IQ", 9, 2**60)), 90_000_000], "more than 10000000 entries"),
        (0, 3, [*_TEXT, *_TEXT, *_TEXT], "bytes of text"),
        (1, 0, [struct.pack("<Q", 1) + b"t" + struct.pack("<I2QIQ", 2, 2**63, 2**63, 0, 0)], "is cut short"),
    ],
    ids=["keys", "tensors", "texts", "arrays in an array", "long texts", "sizes"],
)
def test_a_gguf_header_without_end_is_refused_soon(
    tmp_path: Path, tensors: int, pairs: int, content: list[bytes | int], sentence: str
) -> None:
    """Before its three million keys, or the texts of an array, have been counted one by one. A number: zero bytes."""
    with (file := tmp_path / "m.gguf").open("wb") as opened:
        opened.write(b"GGUF" + struct.pack("<IQQ", 3, tensors, pairs))
        for piece in content:
            if isinstance(piece, int):
                opened.truncate(opened.seek(piece, os.SEEK_CUR))
            else:
                opened.write(piece)
    began = time.process_time()

    with pytest.raises(UserError, match=sentence):
        gguf_reader.read(file)
    assert time.process_time() - began < 3
