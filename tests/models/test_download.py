"""What is reports of a download, by files that grow."""

from __future__ import annotations

import time
from pathlib import Path

from bench.models import download


def test_a_download_is_reported_by_the_bytes_in_its_folder(tmp_path: Path) -> None:
    """Whole and partial files, of the bytes that are expected where the Hub names their sizes."""
    reports: list[str] = []
    with download.reported("o/n", tmp_path, 3 << 20, reports.append, interval_s=0.05):
        time.sleep(0.2)
        (tmp_path / "whole").write_bytes(bytes(1 << 20))
        (tmp_path / "partial.incomplete").write_bytes(bytes(1 << 20))
        time.sleep(0.2)
    with download.reported("o/n", tmp_path, 0, reports.append, interval_s=9.0):
        pass

    assert reports[0] == "model o/n: fetching, 0 of 3 MiB"
    assert reports[-2:] == ["model o/n: fetching, 2 of 3 MiB", "model o/n: fetching, 2 MiB"]
