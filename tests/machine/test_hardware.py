import platform

import pytest

from bench.contract.errors import UserError
from bench.contract.record import Gpu
from bench.machine import cpu, nvml
from bench.machine.hardware import cpu_dtype, cuda_dtype, detect, resolve, slug_of

H200 = Gpu(0, "NVIDIA H200", 150_754_820_096, "9.0", "580.1")
T4 = Gpu(1, "Tesla T4", 16_106_127_360, "7.5", "580.1")


def test_this_cpu_is_described_without_its_host() -> None:
    """The slug is a folder name of device, cores and memory; the host's name is nowhere."""
    machine = detect("cpu")
    assert machine.slug.startswith("cpu-")
    assert machine.slug.endswith("gib")
    assert machine.physical_cores >= 1
    assert machine.ram_bytes > 2**28
    assert machine.compute_dtype in {"float32", "bfloat16"}
    assert machine.gpus == ()
    host = platform.node().lower()
    assert not host or host not in machine.slug.split("-")


def test_auto_is_a_device_that_exists() -> None:
    """The first GPU of its kind where there is one, else the CPU."""
    assert detect("auto").device == ("cuda:0" if nvml.gpus() else "cpu")


@pytest.mark.parametrize(
    ("device", "gpus", "devices"),
    [
        ("auto", (), ("cpu",)),
        ("auto", (H200, T4), ("cuda:0", "cuda:1")),
        ("all", (H200, H200), ("cuda:0", "cuda:1")),
        ("cuda", (H200,), ("cuda:0",)),
        ("cuda:1", (H200, T4), ("cuda:1",)),
        ("cpu", (H200,), ("cpu",)),
    ],
)
def test_words_for_devices(device: str, gpus: tuple[Gpu, ...], devices: tuple[str, ...]) -> None:
    """cpu, cuda and cuda:N mean one device each, auto and all several."""
    assert resolve(device, gpus) == devices


@pytest.mark.parametrize("device", ["cuda:3", "gpu", "cuda:-1", "CPU"])
def test_a_device_that_is_not_there_is_the_users_to_mend(device: str) -> None:
    """The error says what this machine has."""
    with pytest.raises(UserError, match=r"available: cpu, cuda:0 \(NVIDIA H200\)"):
        resolve(device, (H200,))


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("AMD EPYC", "amd-epyc"),
        ("Intel(R) Xeon(R) CPU @ 2.20GHz", "intel-xeon"),
        ("AMD EPYC 9B45 128-Core Processor", "amd-epyc-9b45"),
        ("AMD Ryzen 7 5800U with Radeon Graphics", "amd-ryzen-7-5800u"),
        ("NVIDIA H200", "nvidia-h200"),
        ("Apple M2 Pro", "apple-m2-pro"),
        ("../..", "unknown"),
    ],
)
def test_device_names_as_folder_names(name: str, slug: str) -> None:
    """Trademarks, clock and core count say nothing the rest of the slug does not."""
    assert slug_of(name) == slug


def test_compute_dtypes() -> None:
    """bfloat16 only where the hardware multiplies it: Ampere and newer, AMX; not AVX512_BF16 alone."""
    assert cuda_dtype(H200.compute_capability) == "bfloat16"
    assert cuda_dtype("8.0") == "bfloat16"
    assert cuda_dtype("12.0") == "bfloat16"
    assert cuda_dtype(T4.compute_capability) == "float16"
    assert cpu_dtype(("avx2", "avx512f", "avx512_bf16")) == "float32"
    assert cpu_dtype(("avx512f", "amx_bf16")) == "bfloat16"


def test_cpuinfo_of_x86_and_arm() -> None:
    """The first processor's fields count, on either architecture; an empty file is no error."""
    x86 = "processor\t: 0\nmodel name\t: AMD EPYC\nflags\t\t: fpu avx2\n\nprocessor\t: 1\nmodel name\t: other\n"
    assert cpu.fields(x86)["model name"] == "AMD EPYC"
    assert cpu.fields("processor\t: 0\nFeatures\t: asimd sve\n")["features"] == "asimd sve"
    assert cpu.fields("") == {}


def test_a_gpu_is_described() -> None:
    """Name, memory, capability and driver of a real GPU; one device is x1."""
    if not nvml.gpus():
        pytest.skip("no NVIDIA GPU on this machine")
    machine = detect("cuda:0")
    assert machine.slug.endswith("gib-x1")
    assert machine.memory_bytes > 2**30
    assert float(machine.gpus[0].compute_capability) >= 3.0
    assert machine.gpus[0].driver
