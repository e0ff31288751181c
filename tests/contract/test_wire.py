"""Files are whole or not there, however many write them."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from bench.contract import wire


def test_writers_of_one_path_do_not_mix(tmp_path: Path) -> None:
    """Two with one process id, as two containers have: each reader gets one whole text, and nothing is left beside."""
    file, texts = tmp_path / "file.json", [json.dumps([letter] * 50_000) for letter in "ab"]
    wire.write(file, texts[0])
    failures: list[Exception] = []

    def write(text: str) -> None:
        try:
            for _ in range(40):
                wire.write(file, text)
        except OSError as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert file.read_text() in texts
    assert failures == []
    assert list(tmp_path.iterdir()) == [file]


def test_what_a_killed_writer_left_is_written_over(tmp_path: Path) -> None:
    """Its half of a file is in nobody's way, and is gone afterwards."""
    (tmp_path / ".file.json.part").write_text("half of a longer te")
    wire.write(tmp_path / "file.json", "whole")

    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {"file.json": "whole"}


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """An error has the path that was asked for, and nothing is left beside it."""
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError) as raised:
        wire.write(tmp_path / "folder", "text")

    assert raised.value.filename == str(tmp_path / "folder")
    assert [file.name for file in tmp_path.iterdir()] == ["folder"]
