"""Working folders in the cache: each is held by a lock, and cleared away once the process that held it is gone.

The lock says who lives, and not a process's id: containers that share a cache do not see each other's processes.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from bench import paths

_HELD = ".held"


@contextmanager
def folder() -> Iterator[Path]:
    """A working folder, empty but for its lock, until the block ends; those of processes that are gone are removed."""
    root = paths.cache_folder("scratch")
    with contextlib.ExitStack() as stack:
        with FileLock(paths.cache_folder("locks") / "scratch.lock"):  # nobody removes a folder that is not held yet
            _clear(root)
            own = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=root, ignore_cleanup_errors=True)))
            stack.enter_context(FileLock(own / _HELD))
        yield own


def _clear(root: Path) -> None:
    for left in root.iterdir():
        with contextlib.suppress(Timeout, OSError), FileLock(left / _HELD, timeout=0):
            shutil.rmtree(left, ignore_errors=True)
