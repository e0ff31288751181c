"""What `bench doctor` says of GPUs, from recorded answers of drivers."""

from __future__ import annotations

from dataclasses import replace

from bench.machine.visible import GpuReport, Slice
from bench.run import doctor

H100 = GpuReport(0, "GPU-aa", "NVIDIA H100 80GB HBM3", 85_520_809_984, (9, 0), "580.1")
SPLIT = replace(H100, index=1, uuid="GPU-bb", mig=True)
SLICE = Slice("MIG-11", "NVIDIA H100 80GB HBM3 MIG 1g.10gb", 10_468_982_784)


def test_each_gpu_is_a_line() -> None:
    """Name, memory, capability, driver and MIG; a slice names the GPU it is of, and no UUID is shown."""
    lines = list(doctor.gpus([H100, replace(SPLIT, slices=(SLICE,))], None, "", nvcc=True))

    assert lines == [
        "cuda:0: NVIDIA H100 80GB HBM3, 79.6 GiB, compute capability 9.0, driver 580.1, MIG off",
        f"cuda:1: {SLICE.name}, 9.8 GiB, compute capability 9.0, driver 580.1, a MIG slice of GPU 1",
    ]


def test_a_gpu_that_cannot_be_used_is_told_with_the_reason() -> None:
    """In MIG mode without a slice, or left out by the caller's own variable."""
    lines = list(doctor.gpus([H100, SPLIT], "1", "", nvcc=True))

    assert lines[:2] == [
        "not usable: NVIDIA H100 80GB HBM3 (GPU 0) is not among CUDA_VISIBLE_DEVICES=1",
        "not usable: NVIDIA H100 80GB HBM3 (GPU 1) is in MIG mode and has no slice",
    ]


def test_what_a_run_on_a_gpu_lacks_is_named_each_in_a_line() -> None:
    """Driver, compiler, and the builds that are made where there is a GPU."""
    lines = list(doctor.gpus([], None, "no driver", nvcc=False))

    assert lines[0] == "none: no driver"
    assert "nvcc" in lines[1]
    assert "vllm" in lines[2]
    assert list(doctor.gpus([H100], None, "", nvcc=False))[1:] == lines[1:2]
