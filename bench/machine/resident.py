"""The most memory that a process has had, by the kernel's own mark: no sampling, and no library."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def hwm_bytes(pid: int | str = "self") -> int | None:
    """VmHWM of one process; None outside Linux and for one that has ended."""
    with suppress(OSError, ValueError), Path(f"/proc/{pid}/status").open("rb") as file:
        for line in file:
            if line.startswith(b"VmHWM:"):
                return int(line.split()[1]) * 1024
    return None
