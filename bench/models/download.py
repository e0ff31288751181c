"""A model's files from the Hub, with their progress reported: the library's own bars would fight with the live view."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bench.contract import phase
from bench.contract.job import Report
from bench.progress.eta import clock

_INTERVAL_S = 1.0
_MIB = 2**20


def snapshot(source: str, revision: str | None, patterns: list[str], total: int, report: Report) -> Path:
    """A Hub model's files, downloaded: `total` bytes, 0 if not known. Raises whatever huggingface_hub does."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    blobs = Path(constants.HF_HUB_CACHE) / f"models--{source.replace('/', '--')}" / "blobs"
    with reported(source, blobs, total, report):
        return Path(snapshot_download(source, revision=revision, allow_patterns=patterns))


@contextmanager
def reported(
    source: str, folder: Path, total: int, report: Report, *, interval_s: float = _INTERVAL_S
) -> Iterator[None]:
    """Report how many bytes are in the folder, of whole and partial files, until the block ends."""
    ended, pace = threading.Event(), phase.Pace()

    def poll() -> None:
        of = f" of {total / _MIB:,.0f}" if total else ""
        while True:
            size = _bytes(folder)  # files of other revisions count too
            pace.add(time.monotonic(), size)
            left_s = pace.remaining_s(total) if size < total else None
            left = "" if left_s is None else f", {clock(left_s)} left"
            report(f"model {source}: fetching, {min(size, total or size) / _MIB:,.0f}{of} MiB{left}")
            if ended.wait(interval_s):
                return

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _bytes(folder: Path) -> int:
    size = 0
    for file in folder.rglob("*"):
        with suppress(OSError):  # a partial file that is whole by now has another name
            size += file.stat().st_size
    return size
