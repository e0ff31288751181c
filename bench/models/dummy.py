"""Shapes: the architectures of real models with dummy weights, so that speed needs no download.

A shape is a file of configs/shapes: a config.json in YAML. Its weights are seeded normal numbers of the
model's own initializer range, norms are 1; there is no tokenizer. They are right for speed, memory and energy
and mean nothing, which the key `dummy_weights` of their config.json says to whatever reads it.
"""

from __future__ import annotations

import json
import shutil
import sys
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from bench import formats, paths
from bench.contract import plugins, wire
from bench.contract.errors import UserError
from bench.contract.record import Source
from bench.formats import folder as model_folder
from bench.process.cache import build_once

PREFIX = "shape:"
_VERSION = 1  # of how the weights are drawn
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
    return tuple(sorted(file.name.removesuffix(".yaml") for file in _folder().glob("*.yaml")))


def identity(source: str) -> str:
    """What a shape's weights depend on, for digests: `shape:NAME@HASH`."""
    config = settings(source)
    return f"{source}@{wire.digest([config, _VERSION])}"


@cache
def settings(source: str) -> dict[str, Any]:
    """The config.json of `shape:NAME`; UserError for a name that is none, or an architecture not known."""
    name = source.removeprefix(PREFIX)
    if name not in names():
        raise UserError(plugins.unknown("shape", name, names()))
    config: dict[str, Any] = yaml.safe_load((_folder() / f"{name}.yaml").read_text())
    if config.get("model_type") not in _ARCHITECTURES:
        known = ", ".join(_ARCHITECTURES)
        raise UserError(f"shape {name}: dummy weights are built for the model types {known} only")
    return {**config, "dtype": "bfloat16", model_folder.DUMMY: True}


def planned(source: str) -> Source:
    """What a plan may know of the shape before it is built."""
    config = settings(source)
    rows = {n.removesuffix(".weight"): s for n, s in tensors(config).items() if len(s) == 2}
    linears = {n: (s[0], s[1]) for n, s in rows.items() if n != "model.embed_tokens"}
    return Source(formats.CHECKPOINT, linears, config)


def find(source: str) -> Path | None:
    """The folder of the shape if it was built here."""
    folder = _folder_of(source)
    return folder if (folder / "config.json").is_file() else None


def build(source: str) -> Path:
    """The folder of the shape, drawn and written if it is not there; UserError where the disk is too full."""
    config = settings(source)
    return build_once(_folder_of(source), lambda: find(source), lambda folder: _write(config, folder, source))


def tensors(config: Mapping[str, Any]) -> Shapes:
    """Every tensor of the model by the names that transformers gives them, outputs before inputs."""
    hidden, inner, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    found: Shapes = {"model.embed_tokens.weight": (vocab, hidden)}
    for i in range(config["num_hidden_layers"]):
        found |= {f"model.layers.{i}.{name}": shape for name, shape in _layer(config, hidden, inner).items()}
    found["model.norm.weight"] = (hidden,)
    return found if config["tie_word_embeddings"] else {**found, "lm_head.weight": (vocab, hidden)}


def parameters(config: Mapping[str, Any]) -> int:
    return sum(_elements(shape) for shape in tensors(config).values())


def _layer(config: Mapping[str, Any], hidden: int, inner: int) -> Shapes:
    biases, head_norms = _ARCHITECTURES[config["model_type"]]
    head = config.get("head_dim") or hidden // config["num_attention_heads"]
    queries, keys = head * config["num_attention_heads"], head * config["num_key_value_heads"]
    found: Shapes = {
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
        sizes = {"q": queries, "k": keys, "v": keys}
        found |= {f"self_attn.{name}_proj.bias": (size,) for name, size in sizes.items()}
    if head_norms:
        found |= {f"self_attn.{n}_norm.weight": (head,) for n in "qk"}
    return found


def _write(config: Mapping[str, Any], folder: Path, source: str) -> None:
    """Some layers a file, each drawn on every core; config.json last."""
    from safetensors.numpy import save_file

    every = tensors(config)
    size = _BYTES * sum(map(_elements, every.values()))
    if (free := shutil.disk_usage(folder).free) < 1.05 * size:
        raise UserError(
            f"{source} takes {size / 2**30:.1f} GiB, and {paths.cache()} has {free / 2**30:.1f} GiB free: "
            "free some, or move the cache with LLM_BENCH_CACHE"
        )
    sys.stderr.write(f"drawing {source}: {size / 2**30:.1f} GiB of dummy weights\n")
    items, most = list(every.items()), _FILE_LAYERS * len(_layer(config, 1, 1))
    groups = [items[i : i + most] for i in range(0, len(items), most)]
    placed: dict[str, str] = {}
    with ThreadPoolExecutor() as pool:
        for number, group in enumerate(groups, 1):
            file = f"model-{number:05d}-of-{len(groups):05d}.safetensors"
            drawn = pool.map(lambda item: _drawn(item[0], item[1], config["initializer_range"]), group)
            save_file(dict(zip((n for n, _ in group), drawn, strict=True)), folder / file, {"format": "pt"})
            placed |= dict.fromkeys((n for n, _ in group), file)
    index = {"metadata": {"total_size": size}, "weight_map": placed}
    (folder / model_folder.INDEX).write_text(json.dumps(index))
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def _drawn(name: str, shape: tuple[int, ...], deviation: float) -> Any:
    """The same numbers for the same name and shape, whatever else is drawn; bfloat16."""
    import ml_dtypes
    import numpy as np

    if name.endswith("norm.weight"):
        return np.ones(shape, ml_dtypes.bfloat16)
    draw = np.random.Generator(np.random.SFC64(zlib.crc32(name.encode())))
    return (draw.standard_normal(shape, np.float32) * np.float32(deviation)).astype(ml_dtypes.bfloat16)


def _elements(shape: tuple[int, ...]) -> int:
    count = 1
    for side in shape:
        count *= side
    return count


def _folder_of(source: str) -> Path:
    return paths.cache() / "shapes" / identity(source).removeprefix(PREFIX).replace("@", "-")


def _folder() -> Path:
    return paths.CONFIGS / "shapes"


def listed() -> Iterator[str]:
    """A line per shape: its name and its size."""
    for name in names():
        yield f"{PREFIX}{name}  {parameters(settings(PREFIX + name)) / 1e9:.3g} B parameters"
