"""A model's files from the Hub, with their progress reported: the library's own bars would fight with the live view."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
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
) -> Iterator[Callable[[int], None]]:
    """Report how many bytes are in the folder, of whole and partial files, until the block ends.

    `total` is 0 where it is not known; the block may give it later.
    """
    ended, woken, pace = threading.Event(), threading.Event(), phase.Pace()

    def expect(size: int) -> None:
        nonlocal total
        total = size
        woken.set()

    def poll() -> None:
        known = None
        while not ended.is_set() or known != total:
            woken.clear()
            known = total
            of = f" of {known / _MIB:,.0f}" if known else ""
            size = min(_bytes(folder), known or sys.maxsize)  # files of other revisions count too
            pace.add(time.monotonic(), size)
            left_s = pace.remaining_s(known) if size < known else None
            left = "" if left_s is None else f", {clock(left_s)} left"
            report(f"model {source}: fetching, {size / _MIB:,.0f}{of} MiB{left}")
            if not ended.is_set():
                woken.wait(interval_s)

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
        yield expect
    finally:
        ended.set()
        woken.set()
        thread.join()


def _bytes(folder: Path) -> int:
    size = 0
    for file in folder.rglob("*"):
        with suppress(OSError):  # a partial file that is whole by now has another name
            size += file.stat().st_size
    return size
