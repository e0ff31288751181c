"""A line on stderr, for a person who may have left: a run is for its records, and goes on without."""

from __future__ import annotations

import contextlib
import sys


def line(text: str) -> None:
    """Print it; in silence where nobody reads it any more, or the disk it goes to is full."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)  # noqa: T201  (this is the terminal)
