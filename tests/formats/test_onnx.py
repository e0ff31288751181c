"""ONNX models written here node by node, and what the audit reads in them."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bench import formats
from bench.contract.errors import UserError
from bench.models import resolve

_HIDDEN, _WIDE, _VOCAB = 64, 128, 256


def _constant(name: str, shape: tuple[int, ...], kind: Any = np.float32) -> Any:
    return numpy_helper.from_array(np.zeros(shape, kind), name)


def _write(folder: Path, nodes: list[Any], constants: list[Any], **settings: Any) -> Path:
    """A folder as the model builder leaves one."""
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "length"])
    out = helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "model", [ids], [out], constants)
    onnx.save(helper.make_model(graph), str(folder / "model.onnx"), **settings)
    settings = {"vocab_size": _VOCAB, "context_length": 512, "decoder": {"filename": "model.onnx"}}
    (folder / "genai_config.json").write_text(json.dumps({"model": settings}))
    return folder


def _packed(name: str, rows: int, columns: int, bits: int, block: int) -> tuple[Any, list[Any]]:
    """A MatMulNBits node with float32 scales, and its constants."""
    base = name.strip("/").replace("/", ".")
    node = helper.make_node(
        "MatMulNBits",
        ["x", f"{base}_Q", f"{base}_s"],
        [f"{name}_out"],
        name=name,
        domain="com.microsoft",
        K=columns,
        N=rows,
        bits=bits,
        block_size=block,
    )
    blocks = columns // block
    packed = _constant(f"{base}_Q", (rows, blocks, block * bits // 8), np.uint8)
    return node, [packed, _constant(f"{base}_s", (rows, blocks))]


def test_bits_are_those_of_packed_weights_with_their_scales(tmp_path: Path) -> None:
    """4 bits in blocks of 32 with 32-bit scales are 5 a weight; norms and embeddings are parameters apart."""
    node, constants = _packed("/model/layers.0/attn/q_proj/MatMul_Q4", _WIDE, _HIDDEN, 4, 32)
    gather = helper.make_node("Gather", ["embed", "input_ids"], ["x"], name="/model/embed_tokens/Gather")
    constants += [
        _constant("embed", (_VOCAB, _HIDDEN)),
        _constant("norm", (_HIDDEN,)),
        _constant("cos_cache", (512, 16)),
    ]
    audit = formats.audit(_write(tmp_path, [gather, node], constants), None)

    assert (audit.format, audit.bits_per_weight, audit.quantized_fraction) == ("onnx", 5.0, 1.0)
    assert audit.linear_parameters == _WIDE * _HIDDEN
    assert audit.parameters == _WIDE * _HIDDEN + _VOCAB * _HIDDEN + _HIDDEN
    assert (audit.vocab_size, audit.context) == (_VOCAB, 512)
    assert audit.tensor_types == {"float": 4, "uint8": 1}
    assert formats.source(tmp_path).linears == {"model.layers.0.self_attn.q_proj": (_WIDE, _HIDDEN)}


def test_a_head_that_is_the_embedding_turned_is_tied(tmp_path: Path) -> None:
    """The embedding reads the head's matrix through a Transpose: no linear layer, its parameters once."""
    turned = helper.make_node("Transpose", ["head"], ["table"])
    gather = helper.make_node("Gather", ["table", "input_ids"], ["x"])
    layer = helper.make_node("MatMul", ["x", "up"], ["y"], name="/model/layers.0/mlp/up_proj/MatMul")
    head = helper.make_node("MatMul", ["y", "head"], ["logits"], name="/lm_head/MatMul")
    constants = [_constant("head", (_HIDDEN, _VOCAB)), _constant("up", (_HIDDEN, _HIDDEN))]
    audit = formats.audit(_write(tmp_path, [turned, gather, layer, head], constants), None)

    assert audit.tied_head
    assert audit.linear_parameters == _HIDDEN * _HIDDEN
    assert audit.parameters == _HIDDEN * _HIDDEN + _HIDDEN * _VOCAB
    assert (audit.bits_per_weight, audit.quantized_fraction, audit.notes) == (32.0, 0.0, ())


def test_layers_of_one_name_are_counted_each(tmp_path: Path) -> None:
    """Two products below one module, as exporters other than the model builder number them."""
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["y"], name="/model/layers.0/mlp/MatMul"),
        helper.make_node("MatMul", ["y", "second"], ["z"], name="/model/layers.0/mlp/MatMul_1"),
    ]
    constants = [_constant("first", (_HIDDEN, _WIDE)), _constant("second", (_WIDE, _HIDDEN))]
    audit = formats.audit(_write(tmp_path, nodes, constants), None)

    assert audit.linear_parameters == 2 * _HIDDEN * _WIDE
    assert len(formats.source(tmp_path).linears) == 2


def test_a_pointer_of_git_lfs_is_no_model(tmp_path: Path) -> None:
    """It says what to run, in every format."""
    _write(tmp_path, [], [])
    (tmp_path / "model.onnx").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")

    with pytest.raises(UserError, match=r"model\.onnx is a Git LFS pointer, not the weights: run `git lfs pull`"):
        formats.audit(tmp_path, None)


def test_a_layer_left_wide_is_named(tmp_path: Path) -> None:
    """One of two layers is in 8 bits: half of the weights, and a note with the other's name."""
    small, constants = _packed("/model/layers.0/mlp/up_proj/MatMul_Q8", _HIDDEN, _HIDDEN, 8, 64)
    wide = helper.make_node("MatMul", ["y", "down"], ["logits"], name="/model/layers.0/mlp/down_proj/MatMul")
    constants.append(_constant("down", (_HIDDEN, _HIDDEN)))
    audit = formats.audit(_write(tmp_path, [small, wide], constants), None)

    assert audit.quantized_fraction == 0.5
    assert audit.bits_per_weight == (8.5 + 32) / 2
    assert audit.notes == ("not quantized: model.layers.0.mlp.down_proj",)


def test_integers_behind_a_scale_are_counted_with_it(tmp_path: Path) -> None:
    """Dynamic quantization multiplies by its scales later; a QDQ weight has them in its DequantizeLinear."""
    dynamic = helper.make_node("MatMulInteger", ["x", "w_quantized", "z", "w_zero_point"], ["a"], name="/a/MatMul")
    undone = helper.make_node("DequantizeLinear", ["v", "v_scale"], ["wide"])
    product = helper.make_node("MatMul", ["a", "wide"], ["logits"], name="/b/MatMul")
    constants = [
        _constant("w_quantized", (_HIDDEN, _WIDE), np.uint8),
        _constant("w_scale", (_WIDE,)),
        _constant("w_zero_point", (_WIDE,), np.uint8),
        _constant("v", (_WIDE, _HIDDEN), np.int8),
        _constant("v_scale", (_HIDDEN,)),
    ]
    audit = formats.audit(_write(tmp_path, [dynamic, undone, product], constants), None)

    assert audit.linear_bytes == 2 * _HIDDEN * _WIDE + 4 * _WIDE + _WIDE + 4 * _HIDDEN
    assert audit.quantized_fraction == 1.0


def test_a_product_of_two_computed_values_is_no_layer(tmp_path: Path) -> None:
    """Attention written out has products without a weight."""
    product = helper.make_node("MatMul", ["input_ids", "input_ids"], ["logits"])

    with pytest.raises(UserError, match="no linear layer"):
        formats.audit(_write(tmp_path, [product], []), None)


def test_data_that_is_cut_short_or_missing_is_said(tmp_path: Path) -> None:
    """The data file, the model itself, and the settings: a sentence for each."""
    layer = helper.make_node("MatMul", ["x", "w"], ["logits"], name="/a/MatMul")
    _write(
        tmp_path,
        [layer],
        [_constant("w", (_HIDDEN, _WIDE))],
        save_as_external_data=True,
        location="model.onnx.data",
        size_threshold=0,
    )
    data, model = tmp_path / "model.onnx.data", tmp_path / "model.onnx"
    assert formats.audit(tmp_path, None).linear_bytes == 4 * _HIDDEN * _WIDE
    before = resolve.content_hash(tmp_path)

    data.write_bytes(data.read_bytes()[:-8])
    assert resolve.content_hash(tmp_path) != before
    with pytest.raises(UserError, match=r"model\.onnx\.data is missing or cut short: tensor w ends"):
        formats.audit(tmp_path, None)
    model.write_bytes(model.read_bytes()[:-9])
    with pytest.raises(UserError, match="not an ONNX model"):
        formats.audit(tmp_path, None)
    model.unlink()
    with pytest.raises(UserError, match=r"lacks model\.onnx"):
        formats.audit(tmp_path, None)


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ({"location": "../../etc/passwd"}, "is said to be in '../../etc/passwd', and it belongs beside model.onnx"),
        ({"location": "/etc/passwd"}, "is said to be in '/etc/passwd'"),
        ({"location": "elsewhere/model.onnx.data"}, "it belongs beside"),
        ({"location": "../model.onnx.data"}, "it belongs beside"),
        ({"offset": "-4"}, "no valid offset and length in model.onnx.data"),
        ({"offset": "9" * 30}, "no valid offset"),
        ({"offset": "4"}, "missing or cut short: tensor w ends at byte 32772"),
        ({"length": "5"}, "has 32768 bytes, and is said to have 5"),
        ({"location": ""}, r"\(no file\) is missing"),
        ({"location": "a\0b"}, "missing or cut short"),
    ],
)
def test_data_that_is_not_a_part_of_a_file_beside_the_model_is_refused(
    entries: dict[str, str], reason: str, tmp_path: Path
) -> None:
    """Outside the folder, in another folder, before or after the file, or longer than what the tensor is."""
    layer = helper.make_node("MatMul", ["x", "w"], ["logits"], name="/a/MatMul")
    external = {"save_as_external_data": True, "location": "model.onnx.data", "size_threshold": 0}
    (folder := tmp_path / "a" / "model").mkdir(parents=True)
    _write(folder, [layer], [_constant("w", (_HIDDEN, _WIDE))], **external)
    for place in (tmp_path / "a", folder / "elsewhere"):
        place.mkdir(exist_ok=True)
        (place / "model.onnx.data").write_bytes(bytes(4 * _HIDDEN * _WIDE))
    assert formats.audit(folder, None).linear_bytes == 4 * _HIDDEN * _WIDE

    model = onnx.load(folder / "model.onnx", load_external_data=False)
    at = {entry.key: entry for entry in model.graph.initializer[0].external_data}
    for key, value in entries.items():
        at[key].value = value
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(UserError, match=reason):
        formats.audit(folder, None)


@pytest.mark.parametrize("shape", [[2**40, 2**40], [2**62], [2**31 - 1] * 8])
def test_a_tensor_that_no_file_can_hold_is_refused(shape: list[int], tmp_path: Path) -> None:
    """By its size in whole numbers, which do not overflow: nothing is read or taken for it."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=shape, raw_data=b"1234")
    layer = helper.make_node("MatMul", ["x", "w"], ["logits"])

    with pytest.raises(UserError, match=r"model\.onnx is cut short: tensor w has \d{20,} bytes"):
        formats.audit(_write(tmp_path, [layer], [tensor]), None)


def test_a_long_way_between_weights_and_their_product_is_refused(tmp_path: Path) -> None:
    """A graph of a megabyte could have it walked again for each of its layers."""
    chain = [helper.make_node("Identity", [f"v{i}"], [f"v{i + 1}"]) for i in range(5_000)]
    layers = [helper.make_node("MatMul", ["x", "v5000"], [f"y{i}"]) for i in range(5_000)]
    began = time.process_time()

    with pytest.raises(UserError, match="over 1000 nodes pass the weights of v5000 on"):
        formats.audit(_write(tmp_path, [*chain, *layers], [_constant("v0", (4, 4))]), None)
    assert time.process_time() - began < 5


def test_graphs_within_graphs_are_followed_no_deeper_than_a_stack_is(tmp_path: Path) -> None:
    """A megabyte of nothing but nested subgraphs ends in a sentence."""
    graph = b""
    for _ in range(3_000):  # NodeProto.attribute (5) of AttributeProto.g (6) of GraphProto.node (1)
        for field in (6, 5, 1):
            graph = bytes([field << 3 | 2]) + _varint(len(graph)) + graph
    _write(tmp_path, [], [])
    (tmp_path / "model.onnx").write_bytes(bytes([7 << 3 | 2]) + _varint(len(graph)) + graph)

    with pytest.raises(UserError, match="not an ONNX model"):
        formats.audit(tmp_path, None)


def _varint(value: int) -> bytes:
    low, rest = value & 127, value >> 7
    return bytes([low | 128]) + _varint(rest) if rest else bytes([low])
