"""What is said of a download, by files that grow."""

from __future__ import annotations

import time
from pathlib import Path

from bench.models import download


def test_a_download_is_told_by_the_bytes_that_are_here(tmp_path: Path) -> None:
    """Whole files and begun ones, beside the bytes that are expected where the Hub told of them."""
    said: list[str] = []
    with download.told("o/n", tmp_path, 3 << 20, said.append, look_s=0.05):
        time.sleep(0.2)
        (tmp_path / "whole").write_bytes(bytes(1 << 20))
        (tmp_path / "begun.incomplete").write_bytes(bytes(1 << 20))
        time.sleep(0.2)
    with download.told("o/n", tmp_path, 0, said.append, look_s=9.0):
        pass

    assert said[0] == "model o/n: fetching, 0 of 3 MiB"
    assert said[-2:] == ["model o/n: fetching, 2 of 3 MiB", "model o/n: fetching, 2 MiB"]
