"""Recorded answers of drivers: what the suite makes of them needs no GPU."""

from __future__ import annotations

import dataclasses
from dataclasses import replace

import pytest

from bench.contract import wire
from bench.machine import hardware, nvml
from bench.machine.visible import GpuReport, Slice, visible_devices
from tests.machine.driver import Driver

_GIB = 1 << 30
H100 = GpuReport(0, "GPU-aa11", "NVIDIA H100 80GB HBM3", 85_520_809_984, (9, 0), "580.1")
ALIKE = replace(H100, index=1, uuid="GPU-bb22")
T4 = GpuReport(2, "GPU-cc33", "Tesla T4", 16_106_127_360, (7, 5), "580.1")
SPLIT = replace(
    H100,
    mig=True,
    slices=(
        Slice("MIG-11", "NVIDIA H100 80GB HBM3 MIG 1g.10gb", 10_468_982_784),
        Slice("MIG-22", "NVIDIA H100 80GB HBM3 MIG 1g.10gb", 10_468_982_784),
        Slice("MIG-31", "NVIDIA H100 80GB HBM3 MIG 3g.40gb", 42_144_366_592),
    ),
)
JETSON = GpuReport(0, "GPU-dd44", "Orin", None, (8, 7), "540.3")
UNREADABLE = GpuReport(0, "GPU-ee55", None, None, None)


def _slugs(*reports: GpuReport, names: tuple[str, ...] = ("auto",)) -> list[tuple[str, str]]:
    gpus = tuple(device.gpu for device in visible_devices(reports, None))
    return [(one.device, one.slug) for one in hardware.describe(names, gpus)]


def test_auto_is_each_kind_of_gpu_once() -> None:
    """Two alike GPUs are one device of a run, another kind is a second one, in the driver's order."""
    assert _slugs(H100, ALIKE) == [("cuda:0", "nvidia-h100-80gb-hbm3-80gib-x1")]
    assert [device for device, _ in _slugs(H100, ALIKE, T4)] == ["cuda:0", "cuda:2"]
    assert [device for device, _ in _slugs(T4, H100, ALIKE)] == ["cuda:0", "cuda:1"]
    assert [device for device, _ in _slugs()] == ["cpu"]


def test_all_is_every_gpu_and_the_first_of_a_kind_keeps_its_slug() -> None:
    """Records of alike GPUs lie apart, and those of the first are the same ones that `auto` finds."""
    plain = "nvidia-h100-80gb-hbm3-80gib-x1"
    assert _slugs(H100, ALIKE, T4, names=("all",)) == [
        ("cuda:0", plain),
        ("cuda:1", f"{plain}-gpu1"),
        ("cuda:2", "tesla-t4-15gib-x1"),
    ]
    assert _slugs(H100, ALIKE, names=("cuda:1",)) == [("cuda:1", plain)]
    assert [device for device, _ in _slugs(names=("all",))] == ["cpu"]


def test_a_device_named_twice_is_taken_once() -> None:
    """Several words may stand for one device."""
    assert [d for d, _ in _slugs(H100, ALIKE, names=("auto", "cuda", "cuda:0", "all"))] == ["cuda:0", "cuda:1"]


def test_a_split_gpu_is_its_slices() -> None:
    """A slice has its own memory and the GPU's capability; its profile is in the name of its results."""
    devices = visible_devices((SPLIT, T4), None)
    assert [device.cuda_id for device in devices] == ["MIG-11", "MIG-22", "MIG-31", 2]
    assert {device.gpu.compute_capability for device in devices[:3]} == {"9.0"}
    assert _slugs(SPLIT) == [
        ("cuda:0", "nvidia-h100-80gb-hbm3-mig-1g-10gb-10gib-x1"),
        ("cuda:2", "nvidia-h100-80gb-hbm3-mig-3g-40gb-40gib-x1"),
    ]
    assert visible_devices((replace(SPLIT, slices=()),), None) == ()


def test_a_profile_is_not_cut_off_a_long_name() -> None:
    """Two profiles of a GPU whose name fills the slug keep their folders apart."""
    name = "NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition"
    whole = hardware.slug_of(name)
    assert len(whole) <= 48
    assert hardware.slug_of(f"{name} MIG 1g.24gb") == f"{whole}-mig-1g-24gb"


def test_no_record_has_a_uuid() -> None:
    """It identifies the machine: what a record keeps of a slice is its name, memory and capability."""
    record = wire.dumps(wire.plain([dataclasses.asdict(device.gpu) for device in visible_devices((SPLIT,), None)]))
    assert "MIG-11" not in record
    assert "GPU-aa11" not in record


@pytest.mark.parametrize(
    ("setting", "cuda_ids"),
    [
        (None, ["MIG-11", "MIG-22", "MIG-31", 2]),
        ("", []),
        ("2", [2]),
        ("2,0", [2, "MIG-11", "MIG-22", "MIG-31"]),
        ("MIG-22", ["MIG-22"]),
        ("MIG-3,MIG-1", ["MIG-31", "MIG-11"]),
        ("MIG-", []),
        ("MIG-22,9,2", ["MIG-22"]),
        ("GPU-cc", [2]),
        ("-1", []),
    ],
)
def test_the_callers_cuda_visible_devices_is_honoured(setting: str | None, cuda_ids: list[int | str]) -> None:
    """By index, GPU or MIG UUID; order and end of the list are CUDA's."""
    assert [device.cuda_id for device in visible_devices((SPLIT, T4), setting)] == cuda_ids


def test_what_a_driver_does_not_say() -> None:
    """A GPU that shares the machine's memory has that of the machine; one that says nothing is still one."""
    (jetson,) = hardware.describe(("auto",), tuple(p.gpu for p in visible_devices((JETSON,), None)))
    assert (jetson.memory_bytes, jetson.compute_dtype) == (jetson.ram_bytes, "bfloat16")
    (unreadable,) = visible_devices((UNREADABLE,), None)
    assert (unreadable.gpu.name, unreadable.gpu.compute_capability) == ("NVIDIA GPU", "0.0")


def test_the_driver_is_asked_for_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slices one by one until none is left; a GPU it cannot open is left out, the others keep their index."""
    monkeypatch.setattr(nvml, "pynvml", Driver((None, replace(SPLIT, index=1), T4, replace(UNREADABLE, index=3))))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    assert nvml.unavailable_reason() == ""
    assert nvml.query_gpus()[:2] == (replace(SPLIT, index=1), T4)
    assert [nvml.cuda_id(f"cuda:{n}") for n in range(6)] == ["MIG-11", "MIG-22", "MIG-31", 2, 3, None]
    assert nvml.gpus()[4].name == "NVIDIA GPU"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-31")
    assert nvml.cuda_id("cuda:0") == "MIG-31"


def test_a_slice_is_read_by_its_uuid(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own memory; power and clocks, which are the whole GPU's, are not known of it."""
    monkeypatch.setattr(nvml, "pynvml", Driver((SPLIT,)))
    with nvml.reader("MIG-22") as read:
        assert read is not None
        assert (read().used_bytes, read().power_w, read().energy_j) == (0, None, None)
    with nvml.reader("MIG-99") as read:
        assert read is None


def test_this_machines_driver_answers_or_is_absent() -> None:
    """Nothing raises without a driver; what there is, is named by an index or by the UUID of a slice."""
    devices = nvml.gpus()
    assert len(devices) <= sum(max(1, len(one.slices)) for one in nvml.query_gpus())
    assert nvml.cuda_id("cpu") is None
    assert (nvml.cuda_id("cuda:0") is None) == (not devices)
