from __future__ import annotations

import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from bench.contract.record import Ceiling, Gpu, Hardware
from bench.machine import hardware as machine
from bench.run import ceilings, doctor
from bench.store import Store
from tests.conftest import Command
from tests.run.fake_runs import suite_file

CPU = Hardware("cpu", "cpu-x", "x", 2**34, "x", 2, 2**34, ("avx2",), "float32", "Linux")
KNOWN = Ceiling(
    "measured here", {"1048576": 4e10, "67108864": 1e10}, {"float32": 1e11}, "x", ("avx2",), 2, {"torch": "2"}
)
L4 = replace(
    CPU, device="cuda:0", slug="l4", memory_bytes=24 * 10**9, gpus=(Gpu(0, "NVIDIA L4", 24 * 10**9, "8.9", "580.1"),)
)


def test_a_ceiling_is_kept_beside_the_records(tmp_path: Path, cache: Path) -> None:
    """It is read back, goes into the cache, and needs no second measurement."""
    store = Store(tmp_path / "results")
    store.put_ceiling(CPU, KNOWN)

    assert store.ceiling(CPU) == KNOWN
    assert ceilings.ensure(CPU, store, print) == KNOWN
    assert [file.parent.name for file in cache.rglob("cpu-x-*.json")] == ["ceilings"]
    assert ceilings.find(CPU) == KNOWN


def test_a_ceiling_is_for_its_device_alone(tmp_path: Path, cache: Path) -> None:
    """Other instruction sets, threads or driver: it says nothing of them."""
    store = Store(tmp_path / "results")
    store.put_ceiling(CPU, KNOWN)

    assert cache.is_dir()
    assert ceilings.find(replace(CPU, isa=("avx2", "avx512f")), store) is None
    assert ceilings.find(replace(CPU, physical_cores=4), store) is None
    assert ceilings.find(replace(CPU, gpus=L4.gpus), store) is None


def test_without_its_environment_nothing_is_measured(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cold cache has no ceiling, nor has one that is told off; the doctor says how to come by it."""
    store = Store(tmp_path / "results")
    assert ceilings.ensure(CPU, store, print) is None
    monkeypatch.setenv("LLM_BENCH_PYTHON_HF", sys.executable)
    monkeypatch.setenv(ceilings.OFF, "off")
    assert ceilings.ensure(CPU, store, print) is None
    assert not (store.root / "cpu-x").exists()
    assert list(cache.glob("ceilings/*")) == []
    assert list(ceilings.lines(CPU)) == [
        "none: a run measures it on an idle device with the environment hf (bench envs build hf)"
    ]


def test_a_record_keeps_what_it_is_held_to(cache: Path) -> None:
    """The vendor's figures with their source, what was measured apart; nothing where there is neither."""
    assert cache.is_dir()
    assert ceilings.facts(CPU, None) == {}
    result = ceilings.facts(L4, KNOWN)["ceiling"]

    assert result["vendor"]["bandwidth"] == {"0": 3e11}
    assert result["vendor"]["source"] == "https://www.nvidia.com/en-us/data-center/l4/"
    assert result["measured"]["bandwidth"] == KNOWN.bandwidth
    assert "300 GB/s" in next(ceilings.lines(L4))


def test_the_doctor_has_a_line_for_it(cache: Path) -> None:
    """On this machine too."""
    assert cache.is_dir()
    assert any(line.startswith("ceiling ") for line in doctor.lines())


def test_what_computes_nothing_is_held_to_no_ceiling(command: Command, tmp_path: Path) -> None:
    """A load on the fake engine measures no device, and its records keep nothing of one that was measured."""
    suite, store = suite_file(tmp_path, rounds=1), Store(tmp_path / "results")
    done = command("bench", "run", suite, LLM_BENCH_PYTHON_HF=sys.executable, **{ceilings.OFF: "on"})
    (record,) = [record for record in store.all() if record.cell.workload]

    assert done.returncode == 0, done.stderr
    assert "ceiling" not in done.stderr
    assert "architecture" in record.facts
    assert "ceiling" not in record.facts
    assert list(store.root.rglob("ceiling.json")) == []


@pytest.mark.engine
@pytest.mark.clock
def test_this_machine_is_measured(cache: Path, hf_python: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No larger set is read faster, and a core does more than a billion operations a second."""
    monkeypatch.setenv("LLM_BENCH_PYTHON_HF", str(hf_python))
    hardware = machine.detect("auto")
    known = ceilings.measure(hardware, print)

    assert cache.is_dir()
    assert known is not None
    assert known.device == hardware.name
    sets = sorted(known.bandwidth, key=int)
    assert all(known.bandwidth[small] >= known.bandwidth[large] for small, large in pairwise(sets))
    assert 1e9 < known.bandwidth[sets[-1]] < 1e14
    assert known.flop_per_s["float32"] > 1e9 * hardware.physical_cores
