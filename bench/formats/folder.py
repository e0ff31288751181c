"""The one reader of a model folder: config.json, and the headers of its safetensors files.

Standard library only, so that engines, methods and tasks use it in any environment. No library is trusted: a
file that a download or a full disk cut short is named here in one sentence, and not hours later in an engine's
traceback. The format is at github.com/huggingface/safetensors: 8 bytes of little-endian length, JSON, then the
tensors without holes.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from bench.contract import wire
from bench.contract.errors import UserError
from bench.formats import classes

CONFIG, SINGLE, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
DUMMY = "dummy_weights"  # the key of a config.json whose weights are random: right in size, without meaning
DTYPE_KEYS = ("dtype", "torch_dtype")
HALF = ("float16", "bfloat16")
FLOATS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}  # by safetensors' names
_OLDER_NAMES = {  # of models whose class is not known here
    "hidden_size": ("n_embd", "d_model"),
    "max_position_embeddings": ("n_positions", "n_ctx", "max_sequence_length", "max_seq_len"),
    "num_attention_heads": ("n_head", "n_heads"),
    "num_hidden_layers": ("n_layer", "n_layers"),
}
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
_SAMPLE_BYTES = 1 << 16
_MAX_DIMENSIONS = 64
_LARGEST = 2**48  # of any size a config can give: more is no size, and floats stay exact below
_HEADS = ("lm_head", "embed_out")
_CONFIG_MAX_BYTES = 16_000_000
_HEADER_MAX_BYTES = 100_000_000  # the reference implementation's own limit
_BITS = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64"), 64),
    "F4": 4,
}
_LFS = b"version https://git-lfs"


@dataclass(frozen=True)
class Tensor:
    """A stored tensor, by the header that describes it; `size` in bytes, `offset` into its file."""

    dtype: str
    shape: tuple[int, ...]
    size: int
    offset: int = 0

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Header:
    """What safetensors files say of themselves: tensors by name, and the metadata their writer added."""

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str] = field(default_factory=dict)


def read_config(folder: Path) -> dict[str, Any]:
    """config.json; UserError when the folder or the file is missing, or it is not a JSON object."""
    if not folder.is_dir():
        raise UserError(f"model folder {folder.name} does not exist")
    try:
        config = wire.read_json(folder / CONFIG, _CONFIG_MAX_BYTES)
    except FileNotFoundError:
        raise UserError(f"{folder.name} has no config.json: it is not a Hugging Face model folder") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{folder.name}/config.json cannot be read: {error}") from None
    if not isinstance(config, dict):
        raise UserError(f"{folder.name}/config.json is not a JSON object")
    return config


def text_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the language model: those of a nested `text_config` over the outer ones."""
    nested = config.get("text_config")
    return {**config, **(nested if isinstance(nested, Mapping) else {})}


def setting(config: Mapping[str, Any], name: str) -> Any:
    """A setting of the language model by transformers' name: the config's, else its class's default, else None."""
    text = text_config(config)
    model_type = str(text.get("model_type") or "")
    names = (name, classes.own_name(model_type, name), *_OLDER_NAMES.get(name, ()))
    given = [text[key] for key in names if key in text]
    if given:
        return next((value for value in given if value is not None), None)
    return classes.default(model_type, name)


def key(config: Mapping[str, Any], name: str) -> str:
    """The key under which this config has a setting: transformers' name, else its class's own (n_layer in GPT-2)."""
    text = text_config(config)
    return name if name in text else classes.own_name(str(text.get("model_type") or ""), name)


def size(config: Mapping[str, Any], name: str) -> int:
    """A setting that is a whole number; 0 where it is none, or neither config nor class says."""
    value = setting(config, name)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= _LARGEST else 0


def context_length(config: Mapping[str, Any]) -> int:
    """The most tokens the model can attend to; 0 when it is not stated."""
    return size(config, "max_position_embeddings")


def vocab_size(config: Mapping[str, Any]) -> int:
    """Rows of the embedding; 0 when it is not stated."""
    return size(config, "vocab_size")


def layer_count(config: Mapping[str, Any]) -> int:
    """Transformer layers; 0 when it is not stated."""
    return size(config, "num_hidden_layers")


def hidden_size(config: Mapping[str, Any]) -> int:
    """Width of the residual stream; 0 when it is not stated."""
    return size(config, "hidden_size")


def expert_count(config: Mapping[str, Any]) -> int:
    """Experts in a layer, of which each token passes a few; 0 in models without."""
    return max(size(config, name) for name in _EXPERTS)


def kv_heads(config: Mapping[str, Any]) -> int:
    """Heads of keys and values; 0 where it is not stated: as many as there are heads of queries, then."""
    if setting(config, "new_decoder_architecture"):  # Falcon 40B and later
        return size(config, "num_kv_heads")
    return 1 if setting(config, "multi_query") else size(config, "num_key_value_heads")  # Falcon 7B, StarCoder


def ties_head(config: Mapping[str, Any]) -> bool | None:
    """Whether the output head is the input embedding: by the outer setting, the nested one, or the model's class.

    None where none of them says: the stored tensors then decide.
    """
    key = "tie_word_embeddings"
    outer = {**text_config(config), **config}
    ties = outer[key] if key in outer else classes.default(str(outer.get("model_type") or ""), key)
    ties = setting(config, key) if ties is None else ties
    return None if ties is None else bool(ties)


def is_head(layer: str) -> bool:
    """Whether a linear layer of this name is the output head."""
    return layer.rpartition(".")[2] in _HEADS


def quantization(config: Mapping[str, Any]) -> dict[str, Any]:
    """The quantization_config (compression_config in older files), outer or nested; {} where there is none."""
    for settings in (config, text_config(config)):
        for key in ("quantization_config", "compression_config"):
            if isinstance(settings.get(key), Mapping):
                return dict(settings[key])
    return {}


def stored_dtype(folder: Path) -> str:
    """The floating type the weights are stored in: by the config, else the type of most of the stored numbers.

    float32 where neither is one of FLOATS.
    """
    config = read_config(folder)
    settings = (config, text_config(config))
    dtype = next((str(each[key]) for each in settings for key in DTYPE_KEYS if each.get(key)), "")
    if dtype:
        return dtype if dtype in FLOATS.values() else "float32"
    elements = dict.fromkeys(FLOATS, 0)
    for tensor in read_headers(folder).tensors.values():
        if tensor.dtype in elements:
            elements[tensor.dtype] += tensor.elements
    most = max(elements, key=elements.__getitem__)
    return FLOATS[most] if elements[most] else "float32"


def is_dummy(folder: Path) -> bool:
    """Whether the weights are random: of the right sizes, and without meaning or tokenizer."""
    return (folder / CONFIG).is_file() and bool(read_config(folder).get(DUMMY))


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The safetensors files of the model; UserError when it is stored as a pickle, or not at all."""
    index, single = folder / INDEX, folder / SINGLE
    if index.is_file():
        return tuple(folder / shard for shard in sorted(set(_weight_map(index).values())))
    files = (single,) if single.exists() else tuple(sorted(folder.glob("*.safetensors")))
    if files:
        return files
    if any(folder.glob("*.bin")) or any(folder.glob("*.pt*")):
        raise UserError(
            f"{folder.name} stores its weights as a pickle (*.bin), which can run code when opened: "
            "save it with save_pretrained, which writes safetensors"
        )
    raise UserError(f"{folder.name} has no weights: no safetensors file is in it")


def require_weights(folder: Path) -> None:
    """UserError where config.json or safetensors are missing, before a library looks elsewhere for them."""
    read_config(folder)
    weight_files(folder)


def read_headers(folder: Path) -> Header:
    """The headers of all weight files as one; UserError when a file is missing or broken, or lacks a tensor."""
    index = folder / INDEX
    weight_map = _weight_map(index) if index.is_file() else {}
    tensors: dict[str, Tensor] = {}
    metadata: dict[str, str] = {}
    for file in weight_files(folder):
        if not wire.is_file(file):
            raise UserError(f"weight file {file.name} is missing: the index of {folder.name} names it")
        header = read_header(file)
        indexed = (tensor for tensor, shard in weight_map.items() if shard == file.name)
        if lost := next((tensor for tensor in indexed if tensor not in header.tensors), None):
            raise UserError(f"{file.name} does not hold tensor {lost}, which the index says it does")
        tensors.update(header.tensors)
        metadata.update(header.metadata)
    return Header(tensors, metadata)


def have_equal_bytes(folder: Path, one: str, other: str) -> bool:
    """Whether two tensors of equal size hold the same bytes, by a piece from each sixteenth of them."""
    samples: dict[str, list[bytes]] = {}
    for file in weight_files(folder):
        tensors = read_header(file).tensors
        for name in {one, other} & set(tensors):
            samples[name] = _sample(file, tensors[name])
    return len(samples) == len({one, other}) and samples[one] == samples[other]


def _sample(file: Path, tensor: Tensor) -> list[bytes]:
    step = max(1, tensor.size // 16)
    with file.open("rb") as opened:
        pieces = []
        for start in range(0, tensor.size, step):
            opened.seek(tensor.offset + start)
            pieces.append(opened.read(min(step, _SAMPLE_BYTES)))
    return pieces


def open_weights(file: Path) -> BinaryIO:
    """A file of weights, open for reading; UserError where it cannot be, and for a pointer of Git LFS."""
    try:
        opened = wire.open_regular(file)
    except OSError as error:
        raise UserError(f"weight file {file.name} cannot be read: {error.strerror}") from None
    if opened.read(len(_LFS)) == _LFS:
        opened.close()
        raise UserError(f"{file.name} is a Git LFS pointer, not the weights: run `git lfs pull`")
    opened.seek(0)
    return opened


def read_header(file: Path) -> Header:
    """The header of one safetensors file, whose size is checked against what it describes."""
    with open_weights(file) as opened:
        length = os.fstat(opened.fileno()).st_size
        first = opened.read(8)
        if length < 8:
            raise UserError(f"{file.name} is cut short: {length} bytes, and a safetensors file opens with 8")
        (size,) = struct.unpack("<Q", first)
        if size > min(length - 8, _HEADER_MAX_BYTES):
            raise UserError(
                f"{file.name} is cut short, or not a safetensors file: it promises a header of {size} bytes "
                f"and has {length - 8}"
            )
        text = opened.read(size)
    try:
        entries = wire.parse(text)
    except ValueError as error:
        raise UserError(f"{file.name} is corrupt: its header is not JSON ({error})") from None
    if not isinstance(entries, dict):
        raise UserError(f"{file.name} is corrupt: its header is not a JSON object")
    metadata = entries.pop("__metadata__", None)
    tensors = _tensors(entries, 8 + size, file.name)
    _check_layout(tensors, 8 + size, length, file.name)
    texts = metadata.items() if isinstance(metadata, dict) else ()
    return Header(tensors, {key: text for key, text in texts if isinstance(text, str)})


def _tensors(entries: Mapping[str, Any], data_start: int, name: str) -> dict[str, Tensor]:
    tensors = {}
    for tensor, entry in entries.items():
        try:
            tensors[tensor] = _tensor(entry, data_start)
        except (KeyError, TypeError, ValueError, OverflowError):
            raise UserError(f"{name} is corrupt: its header does not describe tensor {tensor}") from None
    return tensors


def _tensor(entry: Any, data_start: int) -> Tensor:
    (start, end), shape = map(int, entry["data_offsets"]), tuple(map(int, entry["shape"]))
    if len(shape) > _MAX_DIMENSIONS or not all(0 <= each <= _LARGEST for each in (start, end, *shape)):
        raise ValueError
    return Tensor(str(entry["dtype"]), shape, end - start, data_start + start)


def _check_layout(tensors: Mapping[str, Tensor], data_start: int, length: int, name: str) -> None:
    """UserError when the tensors leave holes, or do not fill the file of `length` bytes."""
    at = data_start
    for tensor, entry in sorted(tensors.items(), key=lambda item: (item[1].offset, item[1].size)):
        bits = _BITS.get(entry.dtype)
        if entry.offset != at or entry.size < 0 or (bits and entry.elements * bits != entry.size * 8):
            start = entry.offset - data_start
            raise UserError(
                f"{name} is corrupt: tensor {tensor}, {entry.dtype} {list(entry.shape)}, is said to be at "
                f"bytes {start} to {start + entry.size}, where byte {at - data_start} should follow"
            )
        at += entry.size
    if at != length:
        fault = "is cut short" if length < at else "has bytes no tensor owns"
        described, stored = at - data_start, length - data_start
        raise UserError(f"{name} {fault}: its header describes {described} bytes of tensors and the file has {stored}")


def _weight_map(index: Path) -> dict[str, str]:
    """Tensor name -> file name, without folders."""
    try:
        weight_map = wire.read_json(index, _HEADER_MAX_BYTES)["weight_map"]
        return {str(tensor): Path(file).name for tensor, file in weight_map.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{index.parent.name}/{index.name} is corrupt: it has no readable weight_map") from None
