from __future__ import annotations

from collections import Counter

import pytest

from bench.contract.errors import UserError
from bench.machine import gpus

_KNOWN = {"float32", "tf32", "float16", "float16_acc16", "bfloat16", "fp8", "int8", "int4", "fp4"}


def test_every_entry_quotes_its_vendor() -> None:
    """Each has an address of NVIDIA's, the words that stand there, and figures by dtypes that have a name."""
    for key, board in gpus.boards().items():
        assert board.source.startswith("https://"), key
        assert "nvidia.com/" in board.source, key
        assert len(board.quote) > 40, key
        assert set(board.flop_per_s) <= _KNOWN, key


def test_no_name_stands_for_two_boards() -> None:
    """NVML's name decides alone, whatever its case."""
    names = Counter(name.casefold() for board in gpus.boards().values() for name in board.names)
    assert [name for name, count in names.items() if count > 1] == []


def test_narrower_types_are_no_slower() -> None:
    """Dense figures: half the bits bring at most four times the rate, and a sparse one would bring more."""
    for key, board in gpus.boards().items():
        rate = board.flop_per_s
        assert rate["float32"] >= 5e12, key
        for wide, narrow, least, most in (
            ("tf32", "float16", 1.9, 2.1),
            ("float16", "fp8", 1.9, 2.1),
            ("float16", "int8", 1.9, 4.1),
            ("float16", "bfloat16", 1.0, 1.0),
            ("int8", "int4", 1.9, 2.1),
            ("float16", "float16_acc16", 1.9, 2.1),
        ):
            if wide in rate and narrow in rate:
                assert least <= rate[narrow] / rate[wide] <= most, (key, narrow)


@pytest.mark.parametrize(
    ("name", "memory_gib", "bandwidth", "bfloat16"),
    [
        ("NVIDIA H100 80GB HBM3", 79.6, 3.35e12, 989.5e12),
        ("NVIDIA H100 PCIe", 79.6, 2.039e12, 756.5e12),
        ("NVIDIA A100-SXM4-80GB", 80.0, 2.039e12, 312e12),
        ("NVIDIA A100 80GB PCIe", 80.0, 1.935e12, 312e12),
        ("NVIDIA L4", 22.5, 3.0e11, 121e12),
        ("nvidia geforce rtx 4090", 24.0, 1.008e12, 165.2e12),
    ],
)
def test_a_gpu_is_found_by_the_name_nvml_gives(name: str, memory_gib: float, bandwidth: float, bfloat16: float) -> None:
    """SXM and PCIe boards of one chip differ in bandwidth, and are told apart."""
    ceiling = gpus.peak(name, int(memory_gib * 2**30))

    assert ceiling is not None
    assert (ceiling.bandwidth["0"], ceiling.flop_per_s["bfloat16"]) == (bandwidth, bfloat16)


@pytest.mark.parametrize(
    ("name", "memory_gib"),
    [
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", 4.9),
        ("NVIDIA A100-SXM4-40GB", 4.9),
        ("Orin (nvgpu)", 7.4),
        ("NVIDIA A10G", 22.5),
        ("no such GPU", 80.0),
    ],
)
def test_a_slice_or_a_stranger_has_no_vendor_ceiling(name: str, memory_gib: float) -> None:
    """A slice has a share of the board that the table does not know; a name is never half matched."""
    assert gpus.peak(name, int(memory_gib * 2**30)) is None


def test_short_names_are_looked_up_and_suggested() -> None:
    """`l4` is the L4; a typo is a sentence with the nearest name."""
    assert gpus.named("L4").bandwidth_per_s == 3e11
    assert "h100-sxm" in gpus.boards()
    with pytest.raises(UserError, match="unknown GPU 'h100-smx': did you mean 'h100-sxm'"):
        gpus.named("h100-smx")
