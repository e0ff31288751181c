"""What a model folder stores, read from its bytes: config.json and the headers of its safetensors files.

Standard library only, and no library's word is taken: a file that a download or a full disk cut short is
found here, with a sentence that names it, and not hours later in an engine's traceback. The format is at
github.com/huggingface/safetensors: 8 bytes of little-endian length, JSON, then the tensors without holes.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.contract.errors import UserError

_HEADER_MOST = 100_000_000  # the reference implementation's own limit, in bytes
_BITS = {
    "BOOL": 8,
    "U8": 8,
    "I8": 8,
    "F8_E4M3": 8,
    "F8_E5M2": 8,
    "F8_E8M0": 8,
    "U16": 16,
    "I16": 16,
    "F16": 16,
    "BF16": 16,
    "U32": 32,
    "I32": 32,
    "F32": 32,
    "U64": 64,
    "I64": 64,
    "F64": 64,
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
        count = 1
        for side in self.shape:
            count *= side
        return count


def config(folder: Path) -> dict[str, Any]:
    """config.json; UserError when the folder or the file is missing or is no JSON object."""
    if not folder.is_dir():
        raise UserError(f"model folder {folder.name} does not exist")
    try:
        found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{folder.name} has no config.json, so it is no Hugging Face model folder") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{folder.name}/config.json cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise UserError(f"{folder.name}/config.json is not a JSON object")
    return found


def tensors(folder: Path) -> dict[str, Tensor]:
    """Every stored tensor by name; UserError when there is none, or a weight file is missing or broken."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        return _sharded(folder, _weight_map(index))
    return {name: tensor for file in files(folder) for name, tensor in header(file).items()}


def files(folder: Path) -> list[Path]:
    """The weight files; UserError when there is none."""
    index, single = folder / "model.safetensors.index.json", folder / "model.safetensors"
    if index.is_file():
        return [folder / Path(shard).name for shard in sorted(set(_weight_map(index).values()))]
    found = [single] if single.exists() else sorted(folder.glob("*.safetensors"))
    if not found:
        raise UserError(_no_weights(folder))
    return found


def metadata(folder: Path) -> dict[str, str]:
    """What the safetensors files of `folder` say beside their tensors, taken together."""
    found: dict[str, str] = {}
    for file in sorted(folder.glob("*.safetensors")):
        header(file)
        with file.open("rb") as opened:
            (size,) = struct.unpack("<Q", opened.read(8))
            said = json.loads(opened.read(size)).get("__metadata__")
        found.update(said if isinstance(said, dict) else {})
    return found


def header(file: Path) -> dict[str, Tensor]:
    """The tensors of one safetensors file, whose size is checked against what its header describes."""
    length = file.stat().st_size
    with file.open("rb") as opened:
        first = opened.read(8)
        if _LFS.startswith(first) and first:
            raise UserError(f"{file.name} is a Git LFS pointer, not the weights: run `git lfs pull`")
        if length < 8:
            raise UserError(f"{file.name} is cut short: {length} bytes, where 8 alone open a safetensors file")
        (size,) = struct.unpack("<Q", first)
        if size > min(length - 8, _HEADER_MOST):
            raise UserError(
                f"{file.name} is cut short or no safetensors file: it promises a header of {size} bytes "
                f"and holds {length - 8}"
            )
        described = _parsed(opened.read(size), file.name)
    return _checked(described, 8 + size, length - 8 - size, file.name)


def _parsed(text: bytes, name: str) -> dict[str, Any]:
    try:
        described = json.loads(text)
    except ValueError as error:
        raise UserError(f"{name} is corrupt: its header is no JSON ({error})") from None
    if not isinstance(described, dict):
        raise UserError(f"{name} is corrupt: its header is no JSON object")
    described.pop("__metadata__", None)
    return described


def _checked(described: Mapping[str, Any], first: int, held: int, name: str) -> dict[str, Tensor]:
    """The tensors described, whose bytes begin at `first`.

    UserError when they leave holes or do not fill the `held` bytes.
    """
    found: dict[str, tuple[int, int, Tensor]] = {}
    for tensor, info in described.items():
        try:
            start, end = (int(at) for at in info["data_offsets"])
            shape = tuple(int(side) for side in info["shape"])
            found[tensor] = (start, end, Tensor(str(info["dtype"]), shape, end - start, first + start))
        except (KeyError, TypeError, ValueError):
            raise UserError(f"{name} is corrupt: its header does not describe tensor {tensor}") from None
    at = 0
    for tensor, (start, end, entry) in sorted(found.items(), key=lambda item: item[1][:2]):
        bits = _BITS.get(entry.dtype)
        if start != at or end < start or (bits and entry.elements * bits != entry.size * 8):
            raise UserError(
                f"{name} is corrupt: tensor {tensor}, {entry.dtype} {list(entry.shape)}, is said to be at "
                f"bytes {start} to {end}, where byte {at} should follow"
            )
        at = end
    if at != held:
        fault = "is cut short" if held < at else "has bytes no tensor owns"
        raise UserError(f"{name} {fault}: its header describes {at} bytes of tensors and the file has {held}")
    return {tensor: entry for tensor, (_, _, entry) in found.items()}


def _sharded(folder: Path, weight_map: Mapping[str, str]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for shard in sorted(set(weight_map.values())):
        file = folder / Path(shard).name
        if not file.is_file():
            raise UserError(f"weight file {file.name} is missing: the index of {folder.name} names it")
        stored = header(file)
        promised = [tensor for tensor, where in weight_map.items() if where == shard]
        if lost := [tensor for tensor in promised if tensor not in stored]:
            raise UserError(f"{file.name} does not hold tensor {lost[0]}, which the index says it does")
        found.update(stored)
    return found


def _weight_map(index: Path) -> dict[str, str]:
    try:
        found = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        return {str(tensor): str(file) for tensor, file in found.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{index.parent.name}/{index.name} is corrupt: it has no readable weight_map") from None


def _no_weights(folder: Path) -> str:
    if any(folder.glob("*.bin")) or any(folder.glob("*.pt*")):
        return (
            f"{folder.name} stores its weights as a pickle (*.bin), which can run code when opened: "
            "save it with save_pretrained, which writes safetensors"
        )
    return f"{folder.name} has no weights: no safetensors file is in it"
