import subprocess
import sys
import time

import pytest

from bench.machine import nvml
from bench.machine.guard import Readiness, gpu_reasons, inspect, wait_until_idle
from bench.machine.nvml import Reading

SPIN = "import time\nwhile time.process_time() < 20: pass"  # ends by itself, whatever becomes of the test


def test_a_look_takes_its_time_and_no_longer() -> None:
    """The load is measured over the interval asked for; the fraction is one."""
    began = time.monotonic()
    readiness = inspect("cpu", interval_s=0.2)
    assert 0.2 <= time.monotonic() - began < 2.0
    assert 0.0 <= readiness.facts["before_foreign_cpu_fraction"] <= 1.0
    assert readiness.idle == (readiness.reason == "")


def test_our_own_work_is_not_foreign() -> None:
    """A child of ours that spins does not raise the foreign load by the core it takes."""
    with subprocess.Popen([sys.executable, "-c", SPIN]) as child:
        try:
            time.sleep(0.1)
            own = inspect("cpu", interval_s=0.5)
        finally:
            child.kill()
    assert own.facts["before_top_process"] != "spin"
    assert str(child.pid) not in own.reason


def test_somebody_elses_work_is_named() -> None:
    """A process that left our tree and spins makes the CPU not idle, with its name in the reason."""
    quiet = "stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL"
    start = f"subprocess.Popen([sys.executable, '-c', {SPIN!r}], {quiet})"
    code = f"import subprocess, sys; print({start}.pid)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True, timeout=20).stdout
    try:
        readiness = inspect("cpu", interval_s=0.5)
    finally:
        subprocess.run(["kill", "-9", out.strip()], check=True)
    share = readiness.facts["before_foreign_cpu_fraction"]
    assert share > 0
    assert readiness.idle == (share <= 0.10)
    assert readiness.idle or "most by" in readiness.reason


def test_waiting_ends_with_the_first_idle_look() -> None:
    """Busy, busy, idle: three checks, and the last is the answer."""
    results = iter([Readiness(idle=False, reason="busy"), Readiness(idle=False, reason="busy"), Readiness(idle=True)])
    assert wait_until_idle("cpu", 5.0, poll_s=0.01, check=lambda _: next(results)).idle


def test_waiting_ends_at_its_limit_with_the_reason() -> None:
    """A device that stays busy is reported, not waited for."""
    began = time.monotonic()
    readiness = wait_until_idle("cpu", 0.1, poll_s=0.02, check=lambda _: Readiness(idle=False, reason="training"))
    assert (readiness.idle, readiness.reason) == (False, "training")
    assert time.monotonic() - began < 1.0


@pytest.mark.parametrize(
    ("reading", "endings"),
    [
        (Reading(used_bytes=5 * 2**20), []),
        (Reading(used_bytes=9 * 2**30, processes={1: 8 * 2**30}), ["holds 8192 MiB of cuda:0"]),
        (Reading(used_bytes=9 * 2**30), ["9216 MiB of cuda:0 are in use by a process we cannot see"]),
        (Reading(used_bytes=2**29, processes={42: 2**29}), []),
        (Reading(utilization=0.5, temperature_c=80), ["cuda:0 is computing (50%)", "cuda:0 is at 80 C"]),
        (Reading(), []),
    ],
)
def test_what_keeps_a_gpu_from_being_ready(reading: Reading, endings: list[str]) -> None:
    """Foreign processes, memory nobody owns up to, work and heat each get a clause; ours (42) do not."""
    readiness = list(gpu_reasons("cuda:0", reading, frozenset([42])))
    assert len(readiness) == len(endings)
    assert all(f.endswith(s) for f, s in zip(readiness, endings, strict=True))


def test_the_gpu_is_inspected() -> None:
    """A real GPU adds its memory and temperature to the facts."""
    if not nvml.gpus():
        pytest.skip("no NVIDIA GPU on this machine")
    assert "before_temperature_c" in inspect("cuda:0", interval_s=0.1).facts
