"""A model's files from the Hub, told as they come: the library's own bars would fight with the live view."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

Report = Callable[[str], None]

_LOOK_S = 1.0
_MIB = 2**20


def snapshot(source: str, revision: str | None, wanted: list[str], total: int, report: Report) -> Path:
    """The folder of a Hub model's files, downloaded; `total` bytes of them are expected, 0 if not known.

    Raises whatever huggingface_hub does.
    """
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    blobs = Path(constants.HF_HUB_CACHE) / f"models--{source.replace('/', '--')}" / "blobs"
    with told(source, blobs, total, report):
        return Path(snapshot_download(source, revision=revision, allow_patterns=wanted))


@contextmanager
def told(source: str, folder: Path, total: int, report: Report, *, look_s: float = _LOOK_S) -> Iterator[None]:
    """Report how many bytes there are in the folder, whole files and begun ones, until the block ends."""
    over = threading.Event()

    def look() -> None:
        while True:
            report(f"model {source}: {_said(_bytes(folder), total)}")
            if over.wait(look_s):
                return

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _said(here: int, total: int) -> str:
    """As "fetching, 3201 of 16384 MiB". What is here of other revisions is not told apart."""
    of = f" of {total / _MIB:.0f}" if total else ""
    return f"fetching, {min(here, total or here) / _MIB:.0f}{of} MiB"


def _bytes(folder: Path) -> int:
    found = 0
    for file in folder.glob("*"):
        try:
            found += file.stat().st_size
        except OSError:  # a begun file that is whole by now has another name
            continue
    return found
