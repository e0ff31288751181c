"""Which tool packed a checkpoint's weights, by its tensors and by the settings that its tool left beside them.

A library that does not find the settings in config.json takes packed weights for missing ones and makes up others.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.contract import wire
from bench.contract.errors import UserError
from bench.formats import folder as model_folder
from bench.formats.folder import Tensor

KEY = "quantization_config"
_FILES = {"quantize_config.json": "gptq", "quant_config.json": "awq"}  # of AutoGPTQ and GPTQModel, of AutoAWQ
_AWQ_NAMES = {"w_bit": "bits", "q_group_size": "group_size"}
_LARGEST = 1 << 20
_V2 = "gptq_v2"
_FLOAT_GROUPS = {(4, 16): "nvfp4", (4, 32): "mxfp4", (8, 32): "mxfp8"}  # by bits and group_size
_ZERO_POINTS = {2: (0x55, 0xAA), 4: (0x77, 0x88), 8: (0x7F, 0x80)}  # by bits: symmetric ones, a byte of each format


def completed(folder: Path, config: Mapping[str, Any]) -> dict[str, Any] | None:
    """The quantization_config that config.json lacks, or lacks the method of; None where nothing is missing.

    UserError where the tensors are packed and no file says how, or in a way that nothing reads.
    """
    stated = model_folder.quantization(config)
    if stated.get("quant_method", "awq") == "awq" and _is_llm_awq(model_folder.read_headers(folder).tensors):
        raise UserError(
            f"{folder.name} has weights in llm-awq's own packing (16-bit integers, and scaled zero points), which no "
            "engine here reads: make it with AutoAWQ, layout gemm, or name the original model and a recipe of awq"
        )
    if stated.get("quant_method") or stated.get("load_in_4bit") or stated.get("load_in_8bit"):
        return None  # transformers itself takes the last two for bitsandbytes
    tensors = model_folder.read_headers(folder).tensors
    stored = method(tensors)
    if not stored:
        if stated and KEY in config:
            raise UserError(
                f"{folder.name}/config.json has a quantization_config without quant_method, and its weights are "
                "plain: remove quantization_config"
            )
        return None
    written = {**_settings_file(folder, stored), **stated}
    if stored not in _FILES.values() or not written:
        raise UserError(
            f"{folder.name} has weights packed by {stored}, and config.json does not say so: add a quantization_config "
            f'with "quant_method": "{stored}" and the settings it was made with'
        )
    settings = {_AWQ_NAMES.get(key, key) if stored == "awq" else key: value for key, value in written.items()}
    if stored == "awq":
        settings["version"] = str(settings.get("version", "gemm")).lower()
    if not isinstance(settings.get("bits"), int):
        settings["bits"] = _bits(tensors) or (4 if stored == "awq" else 0)  # AutoAWQ has no other
        if not settings["bits"]:
            raise UserError(f'{folder.name}: nothing says in how many bits its weights are: add "bits" to its settings')
    return {**settings, "quant_method": stored}


def method(tensors: Mapping[str, Tensor]) -> str:
    """The quant_method whose names and shapes these tensors have; "" where they are plain numbers."""
    for name, tensor in tensors.items():
        if name.endswith(".qweight"):
            scales = tensors.get(f"{name.removesuffix('qweight')}scales")
            transposed = scales and len(scales.shape) == len(tensor.shape) == 2 and scales.shape[1] != tensor.shape[1]
            return "awq" if transposed else "gptq"
        if ".weight.absmax" in name or ".weight.quant_state" in name or name.endswith(".SCB"):
            return "bitsandbytes"
        if name.endswith((".weight_packed", ".weight_scale")):
            return "compressed-tensors"
        if name.endswith("_weight_qdata"):
            return "torchao"
        if name.endswith(".weight") and tensor.dtype.startswith("F8"):
            return "compressed-tensors" if f"{name}_scale" in tensors else "fp8"
    return ""


def _is_llm_awq(tensors: Mapping[str, Tensor]) -> bool:
    """Whether a layer is stored as WQLinear of llm-awq (mit-han-lab) does since its second kernels, for TinyChat."""
    return any(
        name.endswith(".qweight") and tensor.dtype == "I16" and f"{name.removesuffix('qweight')}scaled_zeros" in tensors
        for name, tensor in tensors.items()
    )


def zero_points_fault(folder: Path, config: Mapping[str, Any]) -> str:
    """Why a library would read zero points that are not the stored ones; "" where the files do not show that it would.

    GPTQ's first format stores them less one and `gptq_v2` as they are. Those of symmetric weights are all one number,
    which tells the two apart.
    """
    settings = model_folder.quantization(config)
    bits = settings.get("bits")
    stored = _ZERO_POINTS.get(bits) if isinstance(bits, int) else None
    names = {settings[key] for key in ("checkpoint_format", "format") if settings.get(key)}
    if settings.get("quant_method") != "gptq" or stored is None or not names <= {"gptq", _V2}:
        return ""
    zero_points = _zero_points(folder)
    is_second = _V2 in names
    if zero_points != stored[not is_second]:
        return ""
    name, other = (_V2, "gptq") if is_second else ("gptq", _V2)
    return (
        f"its zero points are stored as {other} stores them, and its settings say {name}, or nothing: a library would "
        f'read every weight shifted by one step; set "checkpoint_format" and "format" to "{other}" in config.json'
    )


def _zero_points(folder: Path) -> int | None:
    """The byte that all stored zero points of the first packed layer consist of; None where they differ."""
    for file in model_folder.weight_files(folder):
        for name, tensor in model_folder.read_header(file).tensors.items():
            if name.endswith(".qzeros"):
                with model_folder.open_weights(file) as opened:
                    opened.seek(tensor.offset)
                    values = set(opened.read(min(tensor.size, _LARGEST)))
                return values.pop() if len(values) == 1 else None
    return None


def options(config: Mapping[str, Any]) -> dict[str, str | int | bool]:
    """The settings of packed weights as the methods that write such call them: what engines ask of a recipe's steps."""
    settings = model_folder.quantization(config)
    groups = settings.get("config_groups")  # of compressed-tensors
    first = next(iter(groups.values()), None) if isinstance(groups, Mapping) else None
    if isinstance(first, Mapping):
        scheme = _scheme(first)
        return {"scheme": scheme} if scheme else {}
    given = {"bits": settings.get("bits"), "group_size": settings.get("group_size"), "symmetric": settings.get("sym")}
    layout = {"version": version.lower()} if isinstance(version := settings.get("version"), str) else {}
    return {**{name: value for name, value in given.items() if isinstance(value, int)}, **layout}


def _scheme(group: Mapping[str, Any]) -> str:
    """The scheme of a group of compressed-tensors as the method llmcompressor calls it; "" for one that it lacks."""
    weights = group.get("weights")
    if not isinstance(weights, Mapping) or not isinstance(bits := weights.get("num_bits"), int):
        return ""
    alone = "" if group.get("input_activations") else "a16"
    if str(weights.get("type")).lower() == "float":
        if str(weights.get("strategy")) == "block":
            return "fp8-block"
        size = weights.get("group_size")
        if name := _FLOAT_GROUPS.get((bits, size if isinstance(size, int) else 0)):
            return f"{name}{alone}"
    return f"w{bits}{alone}" if alone else ""


def unpacked(parts: Mapping[str, Tensor], bits: int) -> int:
    """The values packed into a layer's integers: by the shapes of what belongs to it, else at so many bits each.

    With 0 bits by the shapes alone, and 0 where these do not tell.
    """
    packed = parts.get("qweight") or parts.get("weight_packed")
    if packed is None:
        return 0
    scales, order = parts.get("scales"), parts.get("g_idx")
    if "qweight" in parts and scales and len(scales.shape) == len(packed.shape) == 2:
        if scales.shape[1] != packed.shape[1]:  # AWQ packs outputs
            return packed.shape[0] * scales.shape[1]
        if order and order.elements:
            return order.elements * packed.shape[1]
    if "weight_packed" in parts and packed.dtype == "U8":  # floats of 4 bits
        return 2 * packed.size
    return 8 * packed.size // bits if bits else 0


def _bits(tensors: Mapping[str, Tensor]) -> int:
    """Bits of the first packed layer whose shapes tell; 0 where none does."""
    for name, tensor in tensors.items():
        if name.endswith(".qweight"):
            stem = name.removesuffix("qweight")
            parts = {part: tensors[stem + part] for part in ("qweight", "scales", "g_idx") if stem + part in tensors}
            if values := unpacked(parts, 0):
                return max(1, 8 * tensor.size // values)
    return 0


def _settings_file(folder: Path, stored: str) -> dict[str, Any]:
    """The settings in the tool's own file; {} where there is none."""
    for name, tool in _FILES.items():
        if tool == stored and (folder / name).is_file():
            try:
                settings = wire.read_json(folder / name, _LARGEST)
            except (OSError, ValueError) as error:
                raise UserError(f"{folder.name}/{name} cannot be read: {error}") from None
            if not isinstance(settings, dict):
                raise UserError(f"{folder.name}/{name} is not a JSON object")
            return settings
    return {}
