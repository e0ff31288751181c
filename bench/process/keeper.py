"""Kills what a process leaves running when it is killed itself: `python keeper.py`, with its words on stdin.

"+1234" names a process group that was started, "-1234" one that has ended; the end of stdin is the process's own.
The kernel kills the leader of such a group with its parent (`bound`), but not what the leader started: a build's
compilers, an engine's processes.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys


def main() -> None:
    groups: set[int] = set()
    for word in sys.stdin.read().split():
        (groups.add if word[0] == "+" else groups.discard)(int(word[1:]))
    for group in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    main()
