import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from bench.machine import nvml
from bench.machine.nvml import Reading
from bench.machine.probes import Sample, children, observe, watch, window_samples

MIB = 2**20


def python(code: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def test_memory_of_a_worker_is_seen_live_and_at_its_peak() -> None:
    """64 MiB held show in the live figure and in both peaks; the worker's CPU time is counted."""
    code = "b = bytearray(64 << 20); print('x', flush=True); [i for i in range(10**6)]; input()"
    with python(code) as process:
        assert process.stdout is not None
        with watch(process.pid, "cpu", period_s=0.02) as probe:
            process.stdout.read(1)
            time.sleep(0.2)
            assert probe.tree_rss_bytes > 64 * MIB
            process.communicate(b"\n")
    facts = probe.facts()
    assert facts["peak_rss_bytes"] > 64 * MIB
    assert facts["hwm_bytes"] > 64 * MIB
    assert facts["worker_cpu_s"] > 0
    assert facts["available_min_bytes"] > 0
    assert facts["samples"] > 3


def test_a_childs_memory_counts() -> None:
    """The tree is watched, not the process: a grandchild's 64 MiB are in the sum."""
    holder = "b = bytearray(64 << 20); print('x', flush=True); input()"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {holder!r}])"
    with python(code) as process:
        assert process.stdout is not None
        process.stdout.read(1)
        with watch(process.pid, "cpu", period_s=0.02) as probe:
            assert len(children(process.pid)) == 1
            time.sleep(0.1)
        process.communicate(b"\n")
    assert probe.facts()["peak_rss_bytes"] > 64 * MIB


@pytest.mark.skipif(sys.platform != "linux", reason="VmHWM is Linux's")
def test_the_kernels_mark_catches_what_sampling_misses() -> None:
    """A spike between two samples is in hwm_bytes though no sample saw it."""
    code = "b = bytearray(96 << 20); del b; print('x', flush=True); input()"
    with python(code) as process:
        assert process.stdout is not None
        process.stdout.read(1)
        with watch(process.pid, "cpu") as probe:
            pass
        process.communicate(b"\n")
    facts = probe.facts()
    assert facts["hwm_bytes"] > 96 * MIB > facts["peak_rss_bytes"]


def test_a_process_that_ends_or_never_was() -> None:
    """Watching must not raise, whatever becomes of the process; what was not seen is absent."""
    with python("pass") as process:
        process.wait()
        with watch(process.pid, "cpu", period_s=0.01) as probe:
            time.sleep(0.05)
    assert "peak_rss_bytes" not in probe.facts()
    with watch(1, "cpu", period_s=0.01) as other:  # init: perhaps not ours to look at
        time.sleep(0.02)
    assert other.facts()["samples"] >= 2


def test_watching_costs_less_than_a_fiftieth_of_a_core() -> None:
    """The instrument's own CPU time is in the record, and small."""
    with python("input()") as process:
        with watch(process.pid, "cpu") as probe:
            time.sleep(1.0)
        process.communicate(b"\n")
    facts = probe.facts()
    assert facts["probe_cpu_s"] / facts["watched_s"] < 0.02


def replay(readings: list[Reading], pid: int) -> list[Sample]:
    return [Sample(i * 0.2, MIB, MIB, 0.1 * i, 2**30, frozenset([pid]), r) for i, r in enumerate(readings)]


def test_a_recorded_gpu_adds_up() -> None:
    """Memory of our pids only, energy as a difference, clocks while computing, throttle reasons once each."""
    idle = Reading(900, {7: 100}, 70.0, 1000.0, 345, 30, 0.0, 0x1)
    busy = Reading(5000, {7: 3000, 8: 1000}, 500.0, 1100.0, 1980, 55, 1.0, 0x4, 510.0, 700.0, 2619)
    slow = Reading(4000, {7: 2000}, 690.0, 1250.0, 1400, 82, 0.9, 0x24, 680.0, 650.0, 1593)
    facts = observe(replay([idle, busy, slow], 7))
    assert facts["nvml_process_peak_bytes"] == 3000
    assert facts["device_used_peak_bytes"] == 5000
    assert facts["foreign_gpu_processes"] == 1
    assert facts["energy_j"] == 250.0
    assert facts["power_max_w"] == 690.0
    assert (facts["sm_clock_min_mhz"], facts["sm_clock_max_mhz"]) == (1400, 1980)
    assert (facts["memory_clock_min_mhz"], facts["memory_clock_max_mhz"]) == (1593, 2619)
    assert facts["power_limit_w"] == 650.0
    assert facts["temperature_max_c"] == 82
    assert facts["throttle_reasons"] == ("sw_power_cap", "sw_thermal")


def test_a_windows_samples_reach_just_beyond_it() -> None:
    """The samples inside and one at each end, joules from the first of them; idle bits are no throttling."""
    readings = [Reading(0, {7: 1, 8: 1}, energy_j=5e6 + 10.0 * i, throttle=0x5, instant_w=50.0) for i in range(9)]
    assert window_samples(replay(readings, 7), start_s=0.5, duration_s=0.6) == {
        "time_s": [-0.1, 0.1, 0.3, 0.5, 0.7],
        "energy_j": [0.0, 10.0, 20.0, 30.0, 40.0],
        "power_w": [50.0] * 5,
        "sm_clock_mhz": [None] * 5,
        "temperature_c": [None] * 5,
        "throttle": [4] * 5,
        "foreign": [1] * 5,
    }
    unknown = replay([Reading(0, {99: 1}, energy_j=1.0)], 7)  # a container's pids are not the driver's
    assert window_samples(unknown, 0.0, 1.0)["foreign"] == [None]


def test_a_gpu_that_tells_little() -> None:
    """Old boards know no energy and containers no pids of ours: absent keys, and nobody called foreign."""
    facts = observe(replay([Reading(used_bytes=10, processes={99: 5})], 7))
    assert facts["device_used_peak_bytes"] == 10
    assert not facts.keys() & {"energy_j", "nvml_process_peak_bytes", "foreign_gpu_processes", "throttle_reasons"}
    assert observe([]) == {"watched_s": 0.0, "samples": 0, "probe_cpu_s": 0.0}


def test_a_reader_stands_in_for_the_driver() -> None:
    """Each sample takes one reading, from whatever gives readings."""

    @contextmanager
    def recorded(_device: str) -> Iterator[nvml.Reader]:
        yield lambda: Reading(used_bytes=123)

    with watch(1, "cpu", open_reader=recorded) as probe:
        pass
    assert probe.facts()["device_used_peak_bytes"] == 123


def test_the_gpu_is_read() -> None:
    """A real GPU tells its memory, clock and temperature."""
    if not nvml.gpus():
        pytest.skip("no NVIDIA GPU on this machine")
    with watch(1, "cuda:0", period_s=0.05) as probe:
        time.sleep(0.3)
    facts = probe.facts()
    assert facts["device_used_peak_bytes"] >= 0
    assert 0 < facts["temperature_max_c"] < 120
    assert facts["probe_cpu_s"] / facts["watched_s"] < 0.5
