"""What the audit reads from an OpenVINO graph, on graphs of a few layers written here."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import formats
from bench.contract.errors import UserError

# An embedding that is the head too; a linear layer of 8 x 16 in int4 with scales and zero points per group
# of 8; one of 8 x 8 in f32; a product with a table of positions, which is no layer.
_CONSTANTS = [
    ("10", "table", "f16", "32, 16", 1024),
    ("20", "w", "u4", "8, 2, 8", 64),
    ("21", "zero", "u4", "8, 2, 1", 8),
    ("22", "scale", "f16", "8, 2, 1", 32),
    ("23", "to", "i64", "2", 16),
    ("30", "v", "f32", "8, 8", 256),
    ("40", "inv_freq", "f32", "1, 4, 1", 16),
    ("41", "axis", "i64", "", 8),
    ("42", "norm", "f32", "1, 1, 16", 64),
]
_OPS = [
    ("50", "embed", "Gather", ["10", "1", "41"]),
    ("51", "rms", "Multiply", ["50", "42"]),
    ("52", "unpacked", "Convert", ["20"]),
    ("53", "zeros", "Convert", ["21"]),
    ("54", "minus", "Subtract", ["52", "53"]),
    ("55", "times", "Multiply", ["54", "22"]),
    ("56", "flat", "Reshape", ["55", "23"]),
    ("57", "__module.model.layers.0.mlp.up_proj/ov_ext::linear/MatMul", "MatMul", ["51", "56"]),
    ("58", "__module.model.layers.0.mlp.down_proj/ov_ext::linear/MatMul", "MatMul", ["57", "30"]),
    ("59", "positions", "MatMul", ["40", "1"]),
    ("60", "__module.lm_head/ov_ext::linear/MatMul", "MatMul", ["58", "10"]),
]


def _write(folder: Path, before: str = "", cut: int = 0) -> Path:
    at, layers = (0, ['<layer id="1" name="ids" type="Parameter"><data shape="?,?" element_type="i64"/></layer>'])
    for layer, name, kind, shape, size in _CONSTANTS:
        data = f'<data element_type="{kind}" shape="{shape}" offset="{at}" size="{size}"/>'
        layers.append(f'<layer id="{layer}" name="{name}" type="Const">{data}</layer>')
        at += size
    edges = []
    for layer, name, kind, given in _OPS:
        layers.append(f'<layer id="{layer}" name="{name}" type="{kind}"></layer>')
        edges += [
            f'<edge from-layer="{source}" from-port="0" to-layer="{layer}" to-port="{port}"/>'
            for port, source in enumerate(given)
        ]
    text = f"{before}<net><layers>{''.join(layers)}</layers><edges>{''.join(edges)}</edges></net>"
    (folder / "openvino_model.xml").write_text(f'<?xml version="1.0"?>{text}')
    (folder / "openvino_model.bin").write_bytes(bytes(at - cut))
    (folder / "config.json").write_text('{"vocab_size": 32, "max_position_embeddings": 64}')
    return folder


def test_a_weight_is_counted_with_its_scales_and_zero_points(tmp_path: Path) -> None:
    """104 bytes of 128 int4 weights and 256 of 64 in f32; the shape it is brought to is no part of it."""
    audit = formats.audit(_write(tmp_path), None)

    assert audit.format == "openvino"
    assert audit.linear_parameters == 192
    assert audit.linear_bytes == 64 + 8 + 32 + 256
    assert audit.bits_per_weight == pytest.approx(8 * 360 / 192)
    assert audit.quantized_fraction == pytest.approx(128 / 192)
    assert audit.notes == ("not quantized: model.layers.0.mlp.down_proj",)
    assert audit.tensor_types == {"f16": 2, "f32": 3, "u4": 2}
    assert (audit.vocab_size, audit.context) == (32, 64)


def test_a_head_that_is_the_embedding_is_no_linear_layer(tmp_path: Path) -> None:
    """It is stored once, and counted outside them with the norm and the table of positions."""
    audit = formats.audit(_write(tmp_path), None)

    assert audit.tied_head
    assert audit.parameters == 192 + 32 * 16 + 16 + 4


def test_layers_that_are_missing_are_named(tmp_path: Path) -> None:
    """Those of the model it was made from that the graph has not."""
    reference = {"model.layers.0.mlp.up_proj": (8, 16), "model.layers.0.mlp.gate_proj": (8, 16)}

    assert "not stored under its name: model.layers.0.mlp.gate_proj" in formats.audit(_write(tmp_path), reference).notes


def test_a_source_has_its_layers_with_their_shapes(tmp_path: Path) -> None:
    """Groups of inputs are counted together."""
    source = formats.source(_write(tmp_path))

    assert source.linears["model.layers.0.mlp.up_proj"] == (8, 16)


def test_weights_cut_short_are_found(tmp_path: Path) -> None:
    """By what the graph says lies in them."""
    with pytest.raises(UserError, match=r"openvino_model\.bin is missing or cut short"):
        formats.audit(_write(tmp_path, cut=1), None)


def test_a_document_type_is_refused(tmp_path: Path) -> None:
    """No entity is expanded: a graph from a stranger cannot fill the memory with a few lines."""
    bomb = '<!DOCTYPE net [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;&a;">]>'

    with pytest.raises(UserError, match="document type of its own"):
        formats.audit(_write(tmp_path, before=bomb), None)


def test_what_is_no_graph_is_refused(tmp_path: Path) -> None:
    """Cut short, or of something else, in one sentence."""
    (_write(tmp_path) / "openvino_model.xml").write_text("<net><layers>")
    with pytest.raises(UserError, match="cannot be read as a graph"):
        formats.audit(tmp_path, None)
    (tmp_path / "openvino_model.xml").write_text("<net><layers></layers></net>")
    with pytest.raises(UserError, match="has no linear layer"):
        formats.audit(tmp_path, None)
