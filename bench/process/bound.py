"""A process bound to its parent's life, on Linux: `python bound.py IDENTITY COMMAND...` runs a command so.

It runs in every environment, before anything else is imported: standard library only.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def identity() -> str:
    """This process as its children know it: its id, and where that is its id."""
    return f"{os.getpid()}@{machine()}"


def machine() -> str:
    """The namespace of ids of processes, of the system as it was started; "" where there is none."""
    try:
        return f"{_read('/proc/sys/kernel/random/boot_id').strip().decode()}/{os.readlink('/proc/self/ns/pid')}"  # noqa: PTH115
    except OSError:
        return ""


def is_elsewhere(place: str) -> bool:
    """Whether a `machine` is another container on this system: its processes live, and are not seen from here."""
    here = machine()
    return place != here and place.partition("/")[0] == here.partition("/")[0]


def to(parent: str) -> None:
    """Have the kernel kill this process when its parent does end, and now where the parent has ended before.

    `parent` is its identity. Where that is not the parent by now, but lives, the interpreter is a wrapper which
    started another; in a container with ids of its own nobody can tell.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    pid, _, place = parent.partition("@")
    if place == machine() and os.getppid() != int(pid) and not _lives(pid):
        os.kill(os.getpid(), signal.SIGKILL)


def _lives(pid: str) -> bool:
    try:
        return _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()[0] not in (b"Z", b"X")  # ended, if not waited for
    except OSError:
        return False


def _read(file: str) -> bytes:
    with open(file, "rb") as opened:  # noqa: PTH123  (importing pathlib takes longer than the rest of this)
        return opened.read()


if __name__ == "__main__":
    to(sys.argv[1])
    os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606  (that is what this program is for)
