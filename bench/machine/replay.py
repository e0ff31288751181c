"""A device as it was once seen, in a file: one look a line, as JSON. What reads a device can read this.

`python -m bench.machine.replay cuda:0 60 gpu.jsonl` records one for a minute, five looks a second.
"""

from __future__ import annotations

import json
import sys
import time
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from bench.contract import wire
from bench.machine import counters
from bench.machine.counters import Look, OpenReader
from bench.machine.nvml import Reader, Reading

_PERIOD_S = 0.2


def save(path: Path, looks: Sequence[Look]) -> None:
    """Write looks as they are; their times then count from the first of them."""
    zero_s = looks[0].time_s if looks else 0.0
    lines = (wire.dumps(replace(look, time_s=look.time_s - zero_s)) for look in looks)
    wire.write(path, "".join(f"{line}\n" for line in lines))


def load(path: Path) -> tuple[Look, ...]:
    """The looks of a file that `save` wrote."""
    return tuple(map(_look, path.read_text(encoding="utf-8").splitlines()))


def opened(looks: Sequence[Look], began_s: float) -> OpenReader:
    """Readers of a device that does again, from `began_s` on (time.monotonic), what the looks saw.

    Each reading is the last one due; the last of all stands for whatever comes after.
    """
    times_s = [look.time_s - looks[0].time_s for look in looks]

    def read() -> Reading:
        return looks[max(0, bisect_right(times_s, time.monotonic() - began_s) - 1)].reading

    @contextmanager
    def reader(_device: str) -> Iterator[Reader]:
        yield read

    return reader


def _look(line: str) -> Look:
    """Processes by number again: JSON has names for keys only."""
    look = wire.build(Look, json.loads(line))
    processes = {int(pid): used for pid, used in look.reading.processes.items()}
    return replace(look, reading=replace(look.reading, processes=processes))


def main(device: str, duration_s: float, path: Path, open_reader: OpenReader = counters.reader) -> int:
    """Record a device to a file; 1 where there is none to read."""
    with open_reader(device) as read:
        if read is None:
            sys.stderr.write(f"nothing to record on {device}: {counters.source(device)}\n")
            return 1
        save(path, counters.looks(read, duration_s, _PERIOD_S))
    return 0


if __name__ == "__main__":
    words = sys.argv[1:]
    if len(words) != 3 or not words[1].isdigit():
        sys.stderr.write("error: say a device, whole seconds and a file, as: cuda:0 60 gpu.jsonl\n")
        sys.exit(2)
    sys.exit(main(words[0], float(words[1]), Path(words[2])))
