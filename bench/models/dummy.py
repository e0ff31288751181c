"""Shapes: the architectures of real models with dummy weights, so that speed needs no download.

A shape is a file of configs/shapes: a config.json in YAML. Its weights are seeded normal numbers of the
model's own initializer range, norms are 1; there is no tokenizer. The key `dummy_weights` in config.json marks them.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
import zlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

from bench import formats, paths, yaml
from bench.contract import plugins, wire
from bench.contract.errors import UserError
from bench.contract.record import Source
from bench.formats import folder as model_folder
from bench.process.cache import build_once

PREFIX = "shape:"
_VERSION = 1  # of how the weights are generated
_BYTES = 2  # bfloat16
_FILE_LAYERS = 8
_ARCHITECTURES = {  # whose layers these names and shapes are: biases of q, k, v; norms of q and k
    "llama": (False, False),
    "mistral": (False, False),
    "qwen2": (True, False),
    "qwen3": (False, True),
}
Shapes = dict[str, tuple[int, ...]]


def names() -> tuple[str, ...]:
    return tuple(sorted(file.name.removesuffix(".yaml") for file in _shapes_folder().glob("*.yaml")))


def identity(source: str) -> str:
    """What a shape's weights depend on, for digests: `shape:NAME@HASH`."""
    config = settings(source)
    return f"{source}@{wire.digest([config, _VERSION])}"


@cache
def settings(source: str) -> dict[str, Any]:
    """The config.json of `shape:NAME`; UserError for an unknown name or an unsupported architecture."""
    name = source.removeprefix(PREFIX)
    if name not in names():
        raise UserError(plugins.unknown("shape", name, names()))
    config: dict[str, Any] = yaml.load_file(_shapes_folder() / f"{name}.yaml")
    if config.get("model_type") not in _ARCHITECTURES:
        supported = ", ".join(_ARCHITECTURES)
        raise UserError(f"shape {name}: unsupported model_type {config.get('model_type')!r} (supported: {supported})")
    return {**config, "dtype": "bfloat16", model_folder.DUMMY: True}


def planned(source: str) -> Source:
    """What a plan may know of the shape before it is built."""
    config = settings(source)
    rows = {n.removesuffix(".weight"): s for n, s in tensors(config).items() if len(s) == 2}
    linears = {n: (s[0], s[1]) for n, s in rows.items() if n != "model.embed_tokens"}
    return Source(formats.CHECKPOINT, linears, config)


def find(source: str) -> Path | None:
    """The folder of the shape if it was built here."""
    folder = _cache_folder(source)
    return folder if (folder / model_folder.CONFIG).is_file() else None


def build(source: str) -> Path:
    """The folder of the shape, generated if it is not there; UserError where the disk is too full."""
    config = settings(source)
    return build_once(_cache_folder(source), lambda: find(source), lambda folder: _write(config, folder, source))


def tensors(config: Mapping[str, Any]) -> Shapes:
    """Every tensor of the model by the names that transformers gives them, outputs before inputs."""
    hidden, inner, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    shapes: Shapes = {"model.embed_tokens.weight": (vocab, hidden)}
    for i in range(config["num_hidden_layers"]):
        shapes |= {f"model.layers.{i}.{name}": shape for name, shape in _layer(config, hidden, inner).items()}
    shapes["model.norm.weight"] = (hidden,)
    return shapes if config["tie_word_embeddings"] else {**shapes, "lm_head.weight": (vocab, hidden)}


def parameters(config: Mapping[str, Any]) -> int:
    return sum(map(math.prod, tensors(config).values()))


def _layer(config: Mapping[str, Any], hidden: int, inner: int) -> Shapes:
    biases, head_norms = _ARCHITECTURES[config["model_type"]]
    head = config.get("head_dim") or hidden // config["num_attention_heads"]
    queries, keys = head * config["num_attention_heads"], head * config["num_key_value_heads"]
    shapes: Shapes = {
        "input_layernorm.weight": (hidden,),
        "self_attn.q_proj.weight": (queries, hidden),
        "self_attn.k_proj.weight": (keys, hidden),
        "self_attn.v_proj.weight": (keys, hidden),
        "self_attn.o_proj.weight": (hidden, queries),
        "post_attention_layernorm.weight": (hidden,),
        "mlp.gate_proj.weight": (inner, hidden),
        "mlp.up_proj.weight": (inner, hidden),
        "mlp.down_proj.weight": (hidden, inner),
    }
    if biases:
        shapes |= {
            f"self_attn.{name}_proj.bias": (size,) for name, size in zip("qkv", (queries, keys, keys), strict=True)
        }
    if head_norms:
        shapes |= {f"self_attn.{name}_norm.weight": (head,) for name in "qk"}
    return shapes


def _write(config: Mapping[str, Any], folder: Path, source: str) -> None:
    """Some layers a file, each generated on every core; config.json last."""
    from safetensors.numpy import save_file

    shapes = list(tensors(config).items())
    size = _BYTES * parameters(config)
    if (free := shutil.disk_usage(folder).free) < 1.05 * size:
        raise UserError(
            f"{source} takes {size / 2**30:.1f} GiB, and {paths.cache()} has {free / 2**30:.1f} GiB free: "
            "free some, or move the cache with LLM_BENCH_CACHE"
        )
    sys.stderr.write(f"generating {source}: {size / 2**30:.1f} GiB of dummy weights\n")
    per_file = _FILE_LAYERS * len(_layer(config, 1, 1))
    groups = [shapes[i : i + per_file] for i in range(0, len(shapes), per_file)]
    weight_map: dict[str, str] = {}
    with ThreadPoolExecutor() as pool:
        for number, group in enumerate(groups, 1):
            file = f"model-{number:05d}-of-{len(groups):05d}.safetensors"
            names = [name for name, _ in group]
            weights = pool.map(lambda item: _weights(item[0], item[1], config["initializer_range"]), group)
            save_file(dict(zip(names, weights, strict=True)), folder / file, {"format": "pt"})
            weight_map |= dict.fromkeys(names, file)
    (folder / model_folder.INDEX).write_text(json.dumps({"metadata": {"total_size": size}, "weight_map": weight_map}))
    (folder / model_folder.CONFIG).write_text(json.dumps(config, indent=2) + "\n")


def _weights(name: str, shape: tuple[int, ...], deviation: float) -> Any:
    """The same numbers for the same name and shape, whatever else is generated; bfloat16."""
    import ml_dtypes
    import numpy as np

    if name.endswith("norm.weight"):
        return np.ones(shape, ml_dtypes.bfloat16)
    generator = np.random.Generator(np.random.SFC64(zlib.crc32(name.encode())))
    return (generator.standard_normal(shape, np.float32) * np.float32(deviation)).astype(ml_dtypes.bfloat16)


def _cache_folder(source: str) -> Path:
    return paths.cache() / "shapes" / identity(source).removeprefix(PREFIX).replace("@", "-")


def _shapes_folder() -> Path:
    return paths.CONFIGS / "shapes"
