"""Floats of 4 and 8 bits with scales for blocks of them, in files made by hand: their values, bits and faults."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import formats
from bench.formats import checkpoint, float_blocks, packing
from bench.formats.folder import Tensor

LAYER = "model.layers.0.mlp.up_proj"
ONE, TWO, LARGEST, SMALLEST, NAN = 0x38, 0x40, 0x7E, 0x01, 0x7F  # of e4m3: 1, 2, 448, 2^-9
_E2M1 = [0, 0.5, 1, 1.5, 2, 3, 4, 6]


def _write(folder: Path, tensors: dict[str, tuple[str, Any]], name: str = "model.safetensors") -> None:
    """A safetensors file of (type, array) by name, of the types that NumPy lacks too."""
    header, data = {}, b""
    for tensor, (dtype, values) in tensors.items():
        stored = np.ascontiguousarray(values).tobytes()
        shape = list(np.shape(values))
        header[tensor] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(stored)]}
        data += stored
    text = json.dumps(header).encode()
    (folder / name).write_bytes(struct.pack("<Q", len(text)) + text + data)


def _folder(folder: Path, parts: dict[str, tuple[str, Any]], settings: dict[str, Any] | None = None) -> Path:
    config = {
        "vocab_size": 8,
        "tie_word_embeddings": True,
        "quantization_config": {"quant_method": "compressed-tensors", **(settings or {})},
    }
    (folder / "config.json").write_text(json.dumps(config))
    layer = {f"{LAYER}.{part}": tensor for part, tensor in parts.items()}
    _write(folder, {"model.embed_tokens.weight": ("F16", np.zeros((8, 32), np.float16)), **layer})
    return folder


def _weights(folder: Path) -> Any:
    return float_blocks.weights(checkpoint.read(folder), LAYER)


def _bytes(*values: int, shape: tuple[int, ...] = (1,)) -> Any:
    return np.resize(np.array(values, np.uint8), shape)


NVFP4 = {
    "weight_packed": ("U8", _bytes(0x10, 0x32, 0x54, 0x76, 0x98, 0xBA, 0xDC, 0xFE, shape=(2, 16))),
    "weight_scale": ("F8_E4M3", np.array([[ONE, TWO], [LARGEST, SMALLEST]], np.uint8)),
    "weight_global_scale": ("F32", np.array([4], np.float32)),
}
MXFP4 = {
    "weight_packed": ("U8", _bytes(0x10, 0x32, 0x54, 0x76, 0x98, 0xBA, 0xDC, 0xFE, shape=(2, 16))),
    "weight_scale": ("U8", np.array([[127], [120]], np.uint8)),
}
MXFP8 = {
    "weight": ("F8_E4M3", _bytes(ONE, TWO, 0xB8, SMALLEST, shape=(2, 32))),
    "weight_scale": ("U8", np.array([[128], [127]], np.uint8)),
}


def test_nvfp4_is_the_value_times_the_scale_of_its_block_over_the_global_scale(tmp_path: Path) -> None:
    """The lower four bits come first; all sixteen values, in blocks whose scales are 1, 2, 448 and 2^-9, over 4."""
    weights = _weights(_folder(tmp_path, NVFP4))
    values = np.array([*_E2M1, *(-each for each in _E2M1)])

    expected = np.array([[*values / 4, *values / 2], [*values * 112, *values * 2**-11]])
    assert weights.dtype == np.float32
    assert np.array_equal(weights, expected)


def test_nvfp4_ends_in_bfloat16(tmp_path: Path) -> None:
    """Eight bits of mantissa, as compressed-tensors unpacks it: 1.5 / 3.1 is 0.484375 and not 0.4838..."""
    parts = {**NVFP4, "weight_global_scale": ("F32", np.array([3.1], np.float32))}

    assert _weights(_folder(tmp_path, parts))[0, 3] == 0.484375


def test_mxfp4_and_mxfp8_are_scaled_by_powers_of_two(tmp_path: Path) -> None:
    """Exponents have a bias of 127."""
    (four, eight) = (tmp_path / "4", tmp_path / "8")
    for folder, parts in ((four, MXFP4), (eight, MXFP8)):
        folder.mkdir()
        _folder(folder, parts)

    assert _weights(four)[:, :8].tolist() == [_E2M1, [each * 2**-7 for each in _E2M1]]
    assert _weights(eight)[:, :4].tolist() == [[2, 4, -2, 2**-8], [1, 2, -1, 2**-9]]


@pytest.mark.parametrize(
    ("scales", "expected"),
    [
        (np.array([[1, 2, 3], [4, 5, 6]]), [[1, 2, 3], [4, 5, 6]]),  # blocks of 128 x 128, the last ones cut off
        (np.array([7]), [[7, 7, 7], [7, 7, 7]]),  # one for the layer
        (np.arange(200).reshape(200, 1), [[0, 0, 0], [199, 199, 199]]),  # one for each output
    ],
)
def test_fp8_is_scaled_by_block_by_layer_or_by_output(tmp_path: Path, scales: Any, expected: list[Any]) -> None:
    """200 x 300 values of 1: the first, a middle and the last input of the first and the last output."""
    parts = {"weight": ("F8_E4M3", _bytes(ONE, shape=(200, 300))), "weight_scale": ("F32", scales.astype(np.float32))}
    weights = _weights(_folder(tmp_path, parts))

    assert weights.shape == (200, 300)
    assert weights[[0, -1]][:, [0, 200, 299]].tolist() == expected


def test_blocks_of_fp8_are_those_of_the_settings(tmp_path: Path) -> None:
    """64 x 128, as a group of the settings states; scales in bfloat16."""
    parts = {
        "weight": ("F8_E4M3", _bytes(ONE, shape=(128, 128))),
        "weight_scale": ("BF16", np.array([[0x3F80], [0x4000]], np.uint16)),
    }
    groups = {"g": {"weights": {"num_bits": 8, "type": "float", "strategy": "block", "block_structure": [64, 128]}}}

    assert _weights(_folder(tmp_path, parts, {"config_groups": groups}))[[0, 63, 64], 0].tolist() == [1, 1, 2]


def test_the_parts_of_a_layer_may_lie_in_two_files(tmp_path: Path) -> None:
    """As where a checkpoint is cut into shards."""
    folder = _folder(tmp_path, NVFP4)
    whole = _weights(folder)
    (folder / "model.safetensors").unlink()
    first, *others = NVFP4
    shards = {"one.safetensors": [first], "two.safetensors": others}
    for name, parts in shards.items():
        _write(folder, {f"{LAYER}.{part}": NVFP4[part] for part in parts}, name)
    index = {f"{LAYER}.{part}": name for name, parts in shards.items() for part in parts}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))

    assert np.array_equal(_weights(folder), whole)


@pytest.mark.parametrize(
    ("parts", "size"), [(NVFP4, 32 + 4 + 4), (MXFP4, 32 + 2), (MXFP8, 64 + 2)], ids=["nvfp4", "mxfp4", "mxfp8"]
)
@pytest.mark.parametrize("reference", [{LAYER: (2, 32)}, None], ids=["against the source", "from the format alone"])
def test_bits_per_weight_count_scales_and_the_global_scale(
    tmp_path: Path, parts: dict[str, Any], size: int, reference: Any
) -> None:
    """Of 64 weights, whatever the settings say of their bits."""
    audit = formats.audit(_folder(tmp_path, parts), reference)

    assert (audit.linear_parameters, audit.linear_bytes) == (64, size)
    assert audit.bits_per_weight == 8 * size / 64
    assert (audit.quantized_fraction, audit.notes) == (1.0, ())


@pytest.mark.parametrize(
    "faulty",
    [
        {**NVFP4, "weight_scale": ("F8_E4M3", np.array([[ONE, TWO], [NAN, ONE]], np.uint8))},
        {**NVFP4, "weight_global_scale": ("F32", np.array([np.nan], np.float32))},
        {**NVFP4, "weight_global_scale": ("F32", np.array([0], np.float32))},
        {**MXFP4, "weight_scale": ("U8", np.array([[127], [255]], np.uint8))},
        {**MXFP8, "weight": ("F8_E4M3", _bytes(ONE, 0xFF, shape=(2, 32)))},
        {"weight": ("F8_E4M3", _bytes(ONE, shape=(4, 4))), "weight_scale": ("F32", np.array([np.inf], np.float32))},
        {"weight": ("F8_E4M3", _bytes(NAN, shape=(4, 4))), "weight_scale_inv": ("F32", np.ones((1, 1), np.float32))},
    ],
    ids=["scale", "global", "zero", "exponent", "value", "infinite", "published"],
)
def test_a_layer_with_weights_that_are_no_numbers_is_named(tmp_path: Path, faulty: dict[str, Any]) -> None:
    """Whether a value, a scale or the global scale is at fault."""
    audit = formats.audit(_folder(tmp_path, faulty), None)

    assert audit.notes == (f"infinite or not a number: {LAYER}",)


@pytest.mark.parametrize(
    "parts",
    [
        {"weight_packed": ("I32", (4, 4)), "weight_scale": ("F16", (4, 1))},  # integers
        {"weight": ("F8_E4M3", (4, 4)), "weight_scale": ("F32", (3, 1))},  # scales of other blocks
        {"weight_packed": ("U8", (4, 16)), "weight_scale": ("U8", (3, 1))},
        {"weight_packed": ("U8", (4, 16)), "weight_scale": ("F8_E4M3", (4, 2))},  # no global scale
        {"weight": ("F8_E4M3", (0, 4)), "weight_scale": ("F32", (1,))},
        {"weight": ("BF16", (4, 4))},
    ],
)
def test_what_has_other_shapes_is_not_taken_for_floats_in_blocks(parts: dict[str, Any]) -> None:
    """It is counted as it is stored, and its values are not read."""
    tensors = {name: Tensor(dtype, shape, 0) for name, (dtype, shape) in parts.items()}

    assert float_blocks.layer(tensors) is None


@pytest.mark.parametrize(
    ("weights", "activations", "scheme"),
    [
        ({"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16}, True, "nvfp4"),
        ({"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16}, False, "nvfp4a16"),
        ({"num_bits": 4, "type": "float", "strategy": "group", "group_size": 32}, True, "mxfp4"),
        ({"num_bits": 4, "type": "float", "strategy": "group", "group_size": 32}, False, "mxfp4a16"),
        ({"num_bits": 8, "type": "float", "strategy": "group", "group_size": 32}, True, "mxfp8"),
        ({"num_bits": 8, "type": "float", "strategy": "block", "block_structure": [128, 128]}, True, "fp8-block"),
        ({"num_bits": 4, "type": "int", "strategy": "group", "group_size": 128}, False, "w4a16"),
        ({"num_bits": 8, "type": "float", "strategy": "channel"}, True, None),
        ({"num_bits": 4, "type": "float", "group_size": [16]}, True, None),
    ],
)
def test_a_published_checkpoint_s_scheme_is_named_as_the_method_names_it(
    weights: dict[str, Any], *, activations: bool, scheme: str | None
) -> None:
    """By its settings, so that engines know beforehand what they have no kernel for."""
    group = {"weights": weights, "input_activations": {"num_bits": 4} if activations else None}
    config = {"quantization_config": {"quant_method": "compressed-tensors", "config_groups": {"group_0": group}}}

    assert packing.options(config).get("scheme") == scheme
