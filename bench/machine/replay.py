"""A device as it was once sampled, in a file: one sample a line, as JSON. It can stand in for the device.

`python -m bench.machine.replay cuda:0 60 gpu.jsonl` records one for a minute, five samples a second.
"""

from __future__ import annotations

import sys
import time
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from pydantic import TypeAdapter

from bench.contract import wire
from bench.machine import counters
from bench.machine.counters import OpenReader, Sample
from bench.machine.nvml import Reader, Reading

_PERIOD_S = 0.2


def save(path: Path, samples: Sequence[Sample]) -> None:
    """Write samples as they are; their times then count from the first of them."""
    zero_s = samples[0].time_s if samples else 0.0
    lines = (wire.dumps(replace(sample, time_s=sample.time_s - zero_s)) for sample in samples)
    wire.write(path, "".join(f"{line}\n" for line in lines))


def load(path: Path) -> tuple[Sample, ...]:
    """The samples of a file that `save` wrote."""
    return tuple(map(TypeAdapter(Sample).validate_json, path.read_text(encoding="utf-8").splitlines()))


def open_reader(samples: Sequence[Sample], began_s: float) -> OpenReader:
    """Opens readers of a device that repeats the samples from `began_s` on (time.monotonic), the last for good."""
    times_s = [sample.time_s - samples[0].time_s for sample in samples]

    def read() -> Reading:
        return samples[max(0, bisect_right(times_s, time.monotonic() - began_s) - 1)].reading

    @contextmanager
    def reader(_device: str) -> Iterator[Reader]:
        yield read

    return reader


def main(device: str, duration_s: float, path: Path, open_reader: OpenReader = counters.reader) -> int:
    """Record a device to a file; 1 where there is none to read."""
    with open_reader(device) as read:
        if read is None:
            sys.stderr.write(f"nothing to record on {device}: {counters.source(device)}\n")
            return 1
        save(path, counters.poll(read, duration_s, _PERIOD_S))
    return 0


if __name__ == "__main__":
    arguments = sys.argv[1:]
    if len(arguments) != 3 or not arguments[1].isdigit():
        sys.stderr.write("error: expected a device, whole seconds and a file, e.g. cuda:0 60 gpu.jsonl\n")
        sys.exit(2)
    sys.exit(main(arguments[0], float(arguments[1]), Path(arguments[2])))
