"""Readers of what others write: a value, or a sentence for a person, and nothing else, in bounded time."""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from bench import formats, paths, yaml
from bench.contract.errors import UserError
from bench.contract.spec import Model
from bench.formats import gguf_reader
from bench.load import reply, sse
from bench.models import resolve
from bench.publish import prices
from bench.store import Store
from bench.suite import config
from quantize import mixed
from quantize.methods import allocation
from tests.formats import gguf_models
from tests.hostile.strategies import changed, dumps, examples, only_user_errors, spliced
from tests.test_store import TRACES, served

SUITE = {
    "name": "s",
    "model": {"source": "shape:smollm2-135m"},
    "recipes": ["fp32", {"name": "g", "steps": [{"method": "gptq", "bits": 4}]}],
    "engines": ["hf", {"name": "fake", "itl_s": 0.1}],
    "workloads": [{"batch": 1}, {"kind": "closed", "concurrency": 2, "requests": 4}],
    "tasks": ["perplexity", {"task": "divergence", "context": 64}],
    "rounds": 2,
    "price_per_hour": {"amount": 2.5, "currency": "USD", "what": "a machine"},
    "api_price": "0.1/0.2 USD an API",
}
PRICES = {"gpu-x": "2.49 USD one GPU", "gpu-y": {"amount": 2.5, "currency": "USD", "what": "a machine"}}
CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "tie_word_embeddings": False,
    "text_config": {"sliding_window": 16, "layer_types": ["full_attention"]},
    "quantization_config": {
        "quant_method": "gptq",
        "bits": 4,
        "config_groups": {"group_0": {"weights": {"num_bits": 4}}},
    },
}
TENSORS = {
    "model.embed_tokens.weight": (64, 32),
    "model.layers.0.self_attn.k_proj.weight": (16, 32),
    "model.layers.0.mlp.up_proj.qweight": (4, 48),
    "model.layers.0.mlp.up_proj.scales": (1, 48),
    "lm_head.weight": (64, 32),
}
PLAIN = {"config_json": {**CONFIG, "quantization_config": None}, "names": [t for t in TENSORS if ".mlp." not in t]}
LOSSES = {
    "format": "gguf",
    "window_tokens": [255, 255],
    "layers": {"model.layers.0.mlp.up_proj": {"shape": [32, 32], "window_kl": {"q8_0": [0.1, 0.2], "q4_0": [1, 2]}}},
}
TYPES = {"types": {"model.layers.0.mlp.up_proj": "q8_0"}, "predicted_kl": [0.1, 0.0, 0.2]}
TOKENIZER = {"model": {"vocab": {"a": 0}}, "added_tokens": [{"id": 1, "content": "b", "special": False}]}


@given(changed(SUITE))
@examples(25)
def test_a_suite(value: Any) -> None:
    """Any value in any place of it."""
    only_user_errors(lambda: config.suite(value if isinstance(value, dict) else {}))


@given(changed(PRICES))
@examples(25)
def test_prices_of_devices(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    """As JSON, which is YAML."""
    folder = tmp_path_factory.mktemp("results")
    (folder / prices.FILE).write_text(dumps(value))
    only_user_errors(lambda: prices.read(folder))


@given(st.text(alphabet="0123456789./-+eE USDEURx\n", max_size=40) | st.text(max_size=20))
@examples(60)
def test_prices_of_the_command(text: str) -> None:
    """Of an hour and of an API."""
    only_user_errors(lambda: prices.read(Path("nowhere"), price=text))
    only_user_errors(lambda: prices.read(Path("nowhere"), api=text))


@given(st.text(alphabet="[]{}:,-&*!|>'\"#%@?\n abc01.~", max_size=200) | st.text(max_size=50))
@examples(60)
def test_yaml(text: str) -> None:
    """Any text, most of it YAML's own signs."""
    only_user_errors(lambda: yaml.load(text))


@given(st.text(alphabet="engistaskmodl.0129=x[]{}:-", max_size=40))
@examples(60)
def test_overrides(override: str) -> None:
    """Any path and value after --set, laid over the demo's suite."""
    only_user_errors(lambda: config.load_suite(paths.CONFIGS / "smoke.yaml", [override]))


def _read_folder(folder: Path) -> None:
    resolved = resolve.resolve(Model(str(folder)), fetch=False)
    formats.audit(resolved.local_folder, None, zeros=True)
    formats.audit(resolved.local_folder, dict(resolved.source.linears) or None)
    formats.parameters(resolved.local_folder)
    formats.read_architecture(resolved.local_folder)


def _folder(folder: Path, config_json: Any = CONFIG, tokenizer: Any = TOKENIZER, names: Any = tuple(TENSORS)) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(dumps(config_json))
    (folder / "tokenizer.json").write_text(dumps(tokenizer))
    save_file({name: np.zeros(TENSORS[name], np.float16) for name in names}, folder / "model.safetensors")
    return folder


@pytest.mark.usefixtures("cache")
@given(value=changed(CONFIG))
@examples(40)
def test_a_config(tmp_path: Path, value: Any) -> None:
    """Any value in any place of config.json, through all that a plan reads of a model."""
    only_user_errors(lambda: _read_folder(_folder(tmp_path / "m", value)))


@given(value=changed(LOSSES))
@examples(40)
def test_losses_of_layers(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    """Any value in any place of what mixed types are chosen by: an assignment within the budget, or a sentence."""
    folder, out = (tmp_path_factory.mktemp(name) for name in ("losses", "out"))
    (folder / mixed.LOSSES).write_text(dumps(value))
    only_user_errors(lambda: allocation.apply(folder, allocation.Options(9.0), out, "cpu"))


@given(value=changed(TYPES))
@examples(40)
def test_types_of_layers(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    """Any value in any place of the types that were chosen."""
    folder = tmp_path_factory.mktemp("types")
    (folder / mixed.ASSIGNMENT).write_text(dumps(value))
    only_user_errors(lambda: mixed.read_types(folder).facts())


@pytest.mark.usefixtures("cache")
@given(value=changed(TOKENIZER))
@examples(20)
def test_a_tokenizer(tmp_path: Path, value: Any) -> None:
    """Any value in any place of tokenizer.json."""
    only_user_errors(lambda: _read_folder(_folder(tmp_path / "m", CONFIG, value)))


@pytest.mark.usefixtures("cache")
@given(data=st.data())
@examples(40)
def test_safetensors(tmp_path: Path, data: Any) -> None:
    """Any value in any place of the header, and any bytes in any place of the file."""
    folder = _folder(tmp_path / "m", **PLAIN)
    whole = (folder / "model.safetensors").read_bytes()
    (size,) = struct.unpack("<Q", whole[:8])
    if data.draw(st.booleans()):
        text = dumps(data.draw(changed(json.loads(whole[8 : 8 + size])))).encode()
        whole = struct.pack("<Q", len(text)) + text + whole[8 + size :]
    else:
        whole = data.draw(spliced(whole[: 8 + size])) + whole[8 + size :]
    (folder / "model.safetensors").write_bytes(whole)
    only_user_errors(lambda: _read_folder(folder))


def _gguf(folder: Path) -> Path:
    return gguf_models.write(folder / "sound.gguf", shapes={"blk.0.attn_q": (32, 32)})


@pytest.mark.usefixtures("cache")
@given(data=st.data())
@examples(40)
def test_gguf(tmp_path: Path, data: Any) -> None:
    """Any bytes in any place of the header."""
    whole = _gguf(tmp_path).read_bytes()
    (file := tmp_path / "m.gguf").write_bytes(data.draw(spliced(whole[:2_500])) + whole[2_500:])
    gguf_reader._read.cache_clear()
    only_user_errors(lambda: _read_folder(file))


def _onnx() -> bytes:
    helper, kinds = onnx.helper, onnx.TensorProto
    matrix = helper.make_tensor("w", kinds.FLOAT, [4, 8], [0.0] * 32)
    table = helper.make_tensor("e", kinds.FLOAT, [8, 4], [0.0] * 32)
    nodes = [
        helper.make_node("Gather", ["e", "ids"], ["x"], name="/model/embed/Gather"),
        helper.make_node("Identity", ["w"], ["v"]),
        helper.make_node("DequantizeLinear", ["v", "v", "v"], ["u"]),
        helper.make_node("MatMul", ["x", "u"], ["y"], name="/model/layers.0/attn/o_proj/MatMul"),
        helper.make_node("MatMulNBits", ["x", "w"], ["z"], name="/lm_head/MatMulNBits", K=4, N=8, bits=4),
    ]
    inputs = [helper.make_tensor_value_info("ids", kinds.INT64, [None])]
    graph = helper.make_graph(
        nodes, "g", inputs, [helper.make_tensor_value_info("y", kinds.FLOAT, [None, 8])], [matrix, table]
    )
    return bytes(helper.make_model(graph).SerializeToString())


GENAI = {"model": {"vocab_size": 8, "context_length": 64, "decoder": {"filename": "model.onnx"}}}


def _onnx_folder(folder: Path, graph: bytes, settings: Any = GENAI) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "model.onnx").write_bytes(graph)
    (folder / "genai_config.json").write_text(dumps(settings))
    (folder / "config.json").write_text("{}")
    return folder


@pytest.mark.usefixtures("cache")
@given(data=st.data())
@examples(30)
def test_an_onnx_graph(tmp_path: Path, data: Any) -> None:
    """Any bytes in any place of the graph, and any value in genai_config.json."""
    whole = _onnx()
    graph = data.draw(spliced(whole)) if data.draw(st.booleans()) else whole
    folder = _onnx_folder(tmp_path / "m", graph, data.draw(changed(GENAI)))
    only_user_errors(lambda: _read_folder(folder))


_OPENVINO = b"""<net name="m" version="11"><layers>
<layer id="0" name="e" type="Const"><data element_type="f16" shape="8, 4" offset="0" size="64"/></layer>
<layer id="1" name="w" type="Const"><data element_type="i8" shape="8, 4" offset="64" size="32"/></layer>
<layer id="2" name="c" type="Convert"/><layer id="3" name="x" type="Gather"/>
<layer id="9" name="ids" type="Parameter"/>
<layer id="4" name="__module.model.o_proj/aten::linear/MatMul" type="MatMul"/></layers><edges>
<edge from-layer="0" from-port="0" to-layer="3" to-port="0"/>
<edge from-layer="9" from-port="0" to-layer="3" to-port="1"/>
<edge from-layer="1" from-port="0" to-layer="2" to-port="0"/>
<edge from-layer="3" from-port="0" to-layer="4" to-port="0"/>
<edge from-layer="2" from-port="0" to-layer="4" to-port="1"/>
</edges></net>"""


def _openvino_folder(folder: Path, graph: bytes = _OPENVINO) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "openvino_model.xml").write_bytes(graph)
    (folder / "openvino_model.bin").write_bytes(bytes(96))
    (folder / "config.json").write_text("{}")
    return folder


@pytest.mark.usefixtures("cache")
@given(data=st.data())
@examples(40)
def test_an_openvino_graph(tmp_path: Path, data: Any) -> None:
    """Any bytes, and any number for another, in any place of the XML."""
    text = data.draw(spliced(_OPENVINO)) if data.draw(st.booleans()) else _OPENVINO
    for _ in range(data.draw(st.integers(0, 2))):
        digit = data.draw(st.sampled_from([b'"0"', b'"4"', b'"8"', b'"64"', b'"32"']))
        other = data.draw(st.sampled_from([b'"-1"', b'"' + b"9" * 30 + b'"', b'"0"', b'"x"', b'""']))
        text = text.replace(digit, other)
    folder = _openvino_folder(tmp_path / "m", text)
    only_user_errors(lambda: _read_folder(folder))


def _read_record(store: Store, path: Path) -> None:
    list(store.all())
    store.get(path)
    store.traces(path)
    store.items(path)


def _record(store: Store) -> Path:
    return store.put(served(), TRACES, [("item", "acc"), (0, 1.0)])


@given(data=st.data())
@examples(30)
def test_a_record(tmp_path: Path, data: Any) -> None:
    """Any value in any place of it, or any bytes."""
    store = Store(tmp_path)
    path = _record(store)
    if data.draw(st.booleans()):
        path.write_text(dumps(data.draw(changed(json.loads(path.read_text())))))
    else:
        path.write_bytes(data.draw(spliced(path.read_bytes())))
    only_user_errors(lambda: _read_record(store, path))


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize(
    "read",
    [
        pytest.param(lambda _: config.suite(SUITE), id="suite"),
        pytest.param(lambda _: config.load_suite(paths.CONFIGS / "smoke.yaml", ["rounds=1"]), id="overrides"),
        pytest.param(lambda tmp_path: _read_folder(_folder(tmp_path / "m")), id="config and tokenizer"),
        pytest.param(lambda tmp_path: _read_folder(_folder(tmp_path / "m", **PLAIN)), id="safetensors"),
        pytest.param(lambda tmp_path: _read_folder(_gguf(tmp_path)), id="gguf"),
        pytest.param(lambda tmp_path: _read_folder(_onnx_folder(tmp_path / "m", _onnx())), id="onnx"),
        pytest.param(lambda tmp_path: _read_folder(_openvino_folder(tmp_path / "m")), id="openvino"),
        pytest.param(lambda tmp_path: _read_record(Store(tmp_path), _record(Store(tmp_path))), id="record"),
    ],
)
def test_what_is_changed_is_sound_before(tmp_path: Path, read: Callable[[Path], object]) -> None:
    """Without a change no reader refuses it: what follows a refusal would never be tried."""
    read(tmp_path)


@given(data=st.data())
@examples(20)
def test_the_requests_and_items_of_a_record(tmp_path: Path, data: Any) -> None:
    """Any value in any line, or any bytes, packed or not."""
    store = Store(tmp_path)
    path = _record(store)
    for name in ("traces", "items"):
        file = path.with_name(f"r0.{name}.jsonl.gz")
        whole = file.read_bytes()
        if data.draw(st.booleans()):
            lines = data.draw(changed(list(map(json.loads, gzip.decompress(whole).splitlines()))))
            whole = gzip.compress("\n".join(map(dumps, lines)).encode())
        else:
            whole = data.draw(spliced(whole))
        file.write_bytes(whole)
    only_user_errors(lambda: store.traces(path))
    only_user_errors(lambda: store.items(path))


@pytest.mark.parametrize("number", ["9" * 400, "1e999", '"1"', "[1]", "null"])
def test_a_time_that_is_none_is_damage(tmp_path: Path, number: str) -> None:
    """Too large for arithmetic, or no number."""
    store = Store(tmp_path)
    path = store.put(served(), TRACES)
    file = path.with_name("r0.traces.jsonl.gz")
    text = gzip.decompress(file.read_bytes()).decode().replace("123.456789", number)
    file.write_bytes(gzip.compress(text.encode()))

    with pytest.raises(UserError, match=r"traces\.jsonl\.gz is damaged"):
        store.traces(path)


EVENTS = [
    {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]},
    {"choices": [{"index": 0, "delta": {"content": "a"}, "token_ids": [5]}], "usage": {"completion_tokens": 1}},
    {"choices": [{"index": 0, "text": "b", "finish_reason": "length"}], "usage": None},
    {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2, "prompt_tokens_details": {}}},
]


@given(data=st.data())
@examples(60)
def test_an_event_stream(data: Any) -> None:
    """Any value in any event, any bytes in any place, in reads of any size: times, counts, or what was wrong."""
    values = data.draw(changed(EVENTS))
    body = b"".join(b"data: " + dumps(value).encode() + b"\n\n" for value in values) + b"data: [DONE]\n\n"
    body = data.draw(spliced(body)) if data.draw(st.booleans()) else body
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=5)))
    parts = [body[low:high] for low, high in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    decoded = reply.read(sse.events(parts, [float(i) for i in range(len(parts))], list(range(1, len(parts) + 1))))

    assert len(decoded.times) == len(decoded.tokens)
    assert all(isinstance(count, int) and 0 <= count < 2**53 for count in decoded.tokens)
    assert list(decoded.times) == sorted(decoded.times)


@pytest.mark.parametrize("count", [2**63, 10**30, -1, True, 1.5, "7", None])
def test_a_count_of_tokens_that_is_none_counts_nothing(count: object) -> None:
    """Larger than any answer, negative, or no whole number: the text counts as it came."""
    event = {"choices": [{"text": "a"}], "usage": {"completion_tokens": count}}
    body = b"data: " + json.dumps(event).encode() + b"\n\n"
    decoded = reply.read(sse.events([body], [0.0], [1]))

    assert (decoded.tokens, decoded.usage_tokens) == ((1,), None)
