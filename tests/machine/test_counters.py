from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import pytest

from bench.machine import counters, replay
from tests.machine.gpu_traces import PID, Gpu, sampled


def zone(root: Path, number: str, name: str, energy_uj: int, wrap_uj: int = 1_000_000) -> Path:
    """A zone as the kernel shows it in /sys/class/powercap."""
    folder = root / number
    folder.mkdir(parents=True)
    (folder / "name").write_text(f"{name}\n")
    (folder / "max_energy_range_uj").write_text(f"{wrap_uj}\n")
    (folder / "energy_uj").write_text(f"{energy_uj}\n")
    return folder / "energy_uj"


def test_packages_are_summed_and_nothing_is_counted_twice(tmp_path: Path) -> None:
    """Two packages add up; the cores inside one, the platform and the mmio copy are the same joules again."""
    files = [zone(tmp_path, f"intel-rapl:{i}", f"package-{i}", 0) for i in range(2)]
    others = [
        zone(tmp_path, "intel-rapl:0:0", "core", 0),
        zone(tmp_path, "intel-rapl:2", "psys", 0),
        zone(tmp_path, "intel-rapl-mmio:0", "package-0", 0),
    ]
    with counters.reader("cpu", tmp_path) as read:
        assert read is not None
        for file, energy_uj in zip([*files, *others], [300_000, 200_000, 9, 9, 9], strict=True):
            file.write_text(str(energy_uj))
        assert read().energy_j == pytest.approx(0.5)


def test_a_counter_that_begins_anew_goes_on(tmp_path: Path) -> None:
    """Two wrap-arounds of a counter that holds 1 J: 0.9, 0.2, 0.1 J read are 1.2 J since the start."""
    file = zone(tmp_path, "intel-rapl:0", "package-0", 900_000)
    with counters.reader("cpu", tmp_path) as read:
        assert read is not None
        joules = []
        for energy_uj in (950_000, 200_000, 100_000):
            file.write_text(str(energy_uj))
            joules.append(read().energy_j)
    assert joules == pytest.approx([0.05, 0.3, 1.2])


def test_a_package_that_cannot_be_read_leaves_no_counter(tmp_path: Path) -> None:
    """Half of a machine's packages would be half of its joules: there is no reader, and doctor says why."""
    zone(tmp_path, "intel-rapl:0", "package-0", 5)
    closed = zone(tmp_path, "intel-rapl:1", "package-1", 5)
    assert counters.source("cpu", tmp_path) == "RAPL of 2 CPU packages, memory chips not included"
    closed.unlink()
    with counters.reader("cpu", tmp_path) as read:
        assert read is None
    assert counters.source("cpu", tmp_path).startswith("none: no NVIDIA GPU, and ")
    empty = tmp_path / "nothing"
    assert counters.source("cpu", empty) == f"none: no NVIDIA GPU, and {empty} has no readable counter"


def test_a_recording_comes_back_as_it_was(tmp_path: Path) -> None:
    """Every sample, its processes by number and its time from the first on."""
    samples = sampled(Gpu([(1, 50), (1, 300)], others=1), 2.0)
    replay.save(tmp_path / "gpu.jsonl", samples)
    again = replay.load(tmp_path / "gpu.jsonl")

    assert [sample.reading for sample in again] == [sample.reading for sample in samples]
    assert [sample.time_s for sample in again] == pytest.approx(
        [sample.time_s - samples[0].time_s for sample in samples]
    )
    assert PID in again[0].reading.processes


def test_a_recording_stands_in_for_its_device() -> None:
    """Read again in the same time it gives the same samples; after its end, the last."""
    samples = sampled(Gpu([(1, 100)]), 0.4, period_s=0.05)
    with replay.open_reader(samples, time.monotonic())("cuda:0") as read:
        assert read is not None
        again = counters.poll(read, 0.6, period_s=0.01)
    readings = [sample.reading for sample in again]
    assert readings[0] == samples[0].reading
    assert readings[-1] == samples[-1].reading
    joules = [r.energy_j for r in readings if r.energy_j is not None]
    assert joules == sorted(joules)


def test_a_recording_is_made_by_one_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Five samples a second in the file; where nothing can be read, a line that says so and no file."""
    source = replay.open_reader(sampled(Gpu([(9, 100)]), 2.0), time.monotonic())
    assert replay.main("cuda:0", 0.7, tmp_path / "gpu.jsonl", source) == 0
    assert len(replay.load(tmp_path / "gpu.jsonl")) == 5  # at 0, 0.2, 0.4, 0.6 and 0.8 s

    nothing = partial(counters.reader, root=tmp_path)
    assert replay.main("cpu", 1.0, tmp_path / "cpu.jsonl", nothing) == 1
    assert "nothing to record on cpu" in capsys.readouterr().err
    assert not (tmp_path / "cpu.jsonl").exists()
