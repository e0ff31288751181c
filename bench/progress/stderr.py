"""A line on stderr, for a person who may have left: a run is for its records, and goes on without."""

from __future__ import annotations

import contextlib
import sys


def line(text: str) -> None:
    """Print it as text from outside may be shown; in silence where nobody reads it, or the disk it goes to is full."""
    from bench.contract import outside  # only now: a command's signals are heard before this is imported

    with contextlib.suppress(OSError):
        print(outside.printable_lines(outside.scrubbed(text)), file=sys.stderr, flush=True)  # noqa: T201  (this is the terminal)
