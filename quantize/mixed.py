"""Bits to a budget: options, sizes and files that methods of mixed types share.

Two steps come before such a method, each cached and shared: `sensitivity` measures what each layer costs in each type
that may be chosen, `allocation` chooses. What they know is in files beside the weights, which stay as they are.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from bench.contract import wire
from bench.contract.errors import UserError
from bench.contract.record import Source
from bench.contract.spec import Step
from bench.formats import folder as model_folder

Format = Literal["gguf", "onnx"]
LOSSES, ASSIGNMENT = "layer_losses.json", "layer_types.json"
SINCE = frozenset({"mixed_bits_per_weight", "mixed_choices", "mixed_tokens"})
_GGML = ("f16", "q8_0", "q6_k", "q5_k", "q5_1", "q5_0", "q4_k", "q4_1", "q4_0", "iq4_xs", "iq4_nl", "q3_k", "q2_k")
# ggml's are those that are made without an importance matrix.
CHOICES: Mapping[str, tuple[str, ...]] = {"gguf": _GGML, "onnx": ("int8", "int4")}
_SCALE_BYTES = 4  # of ONNX Runtime's blocks on a CPU


@dataclass(frozen=True)
class MixedOptions:
    """`mixed`: types by layer, of least predicted loss at no more than `bits_per_weight` over the linear layers.

    `choices`: the types that a layer may get, as [q4_k, q6_k]. `tokens`: of the calibration text, by which each layer's
    KL divergence in each type is measured.
    """

    mixed_bits_per_weight: float = 0.0
    mixed_choices: str = ""
    mixed_tokens: int = 2048


@dataclass(frozen=True)
class Allotment:
    """A type by layer, and the KL that they are predicted to cost together (nats a token), with its interval."""

    types: Mapping[str, str]
    predicted_kl: tuple[float, float, float]

    def facts(self) -> dict[str, Any]:
        """For the artifact's record."""
        kinds = list(self.types.values())
        value, low, high = self.predicted_kl
        return {
            "predicted_kl": value,
            "predicted_kl_low": low,
            "predicted_kl_high": high,
            "layers_by_type": {kind: kinds.count(kind) for kind in dict.fromkeys(sorted(kinds))},
        }


def is_set(options: MixedOptions) -> bool:
    """Whether types are chosen by layer."""
    return options.mixed_bits_per_weight != 0 or bool(options.mixed_choices)


def names(choices: str) -> list[str]:
    """The types that may be chosen, in lower case."""
    return [name.strip().lower() for name in choices.split(",") if name.strip()]


def unknown_choice(choices: str, kind: Format) -> str | None:
    """Which of these the format lacks; None where it has them all."""
    if unknown := [name for name in names(choices) if name not in CHOICES[kind]]:
        return f"choices has {unknown[0]}: choose of {', '.join(CHOICES[kind])}"
    return None


def unsupported(options: MixedOptions, kind: Format, source: Source, block: int = 0) -> str | None:
    """Why there is no such assignment for a model of these layers; `block` as of `size`."""
    choices, bits = names(options.mixed_choices), options.mixed_bits_per_weight
    if not 0 < bits < math.inf:
        return f"mixed.bits_per_weight {bits:g} is no size: name the bits that a weight may take on average, as 4.5"
    if reason := unknown_choice(options.mixed_choices, kind):
        return f"mixed.{reason}"
    if len(set(choices)) < 2:
        return "mixed.choices has fewer than two types: name at least two, as [q4_k, q6_k]"
    if options.mixed_tokens < 1:
        return f"mixed.tokens {options.mixed_tokens} is not at least 1"
    if model_folder.expert_count(source.config):
        return "mixed types are chosen for linear layers, and this model's experts are in one tensor a block"
    return _too_few_bits(choices, bits, kind, source, block)


def _too_few_bits(choices: Sequence[str], bits: float, kind: Format, source: Source, block: int) -> str | None:
    if not source.linears:
        return None  # not known yet
    least, weights = 0, 0
    for name, shape in source.linears.items():
        its = [size(kind, choice, shape, block) for choice in choices if fits(kind, choice, shape)]
        if not its:
            return f"none of mixed.choices has blocks that divide the {shape[1]} inputs of {name}: add q8_0"
        least, weights = least + min(its), weights + shape[0] * shape[1]
    if 8 * least > bits * weights:
        return (
            f"mixed.bits_per_weight {bits:g} cannot be met: the smallest of {', '.join(choices)} for each layer take "
            f"{math.ceil(800 * least / weights) / 100:.2f}"
        )
    return None


def fits(kind: Format, choice: str, shape: tuple[int, int]) -> bool:
    """Whether a layer [out, in] can be stored in that type."""
    return kind == "onnx" or shape[1] % _block(choice)[0] == 0


def size(kind: Format, choice: str, shape: tuple[int, int], block: int = 0) -> int:
    """Bytes of a layer [out, in] in that type, with its scales; `block`: of ONNX, the inputs that share one."""
    if kind == "onnx":
        blocks = -(-shape[1] // block)
        return shape[0] * blocks * (block * int(choice.removeprefix("int")) // 8 + _SCALE_BYTES)
    weights, size_bytes = _block(choice)
    return shape[0] * shape[1] // weights * size_bytes


def _block(choice: str) -> tuple[int, int]:
    """Weights and bytes of a block of a ggml type."""
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    return GGML_QUANT_SIZES[GGMLQuantizationType[choice.upper()]]


def steps(options: Any, kind: Format, source_format: str, block: int = 0) -> tuple[Step, ...]:
    """The steps before: one for all budgets of these choices, and one for this budget; first one to floats."""
    measured = {
        "format": kind,
        "choices": ",".join(sorted(set(names(options.mixed_choices)))),
        "block": block,
        "tokens": options.mixed_tokens,
        "calibration": options.calibration,
        "seed": options.seed,
    }
    opened = (Step("dequantize", {}),) if source_format == "gguf" else ()
    chosen = Step("allocation", {"bits_per_weight": options.mixed_bits_per_weight})
    return (*opened, Step("sensitivity", measured), chosen)


def link(folder: Path, out: Path, *, without: str) -> None:
    """The files of a model folder in another one, by links where the disk has them; but for one."""
    for file in sorted(folder.iterdir()):
        if not file.is_file() or file.name == without:
            continue
        try:
            os.link(file, out / file.name)
        except OSError:
            shutil.copyfile(file, out / file.name)


def write(file: Path, content: Mapping[str, Any]) -> None:
    wire.write(file, wire.dumps(content))


def read_losses(folder: Path) -> dict[str, Any]:
    """What `sensitivity` wrote; UserError where that is not there, or something else is."""
    content = _read(folder / LOSSES, "sensitivity")
    layers: Any = content.get("layers")
    tokens: Any = content.get("window_tokens")
    if (
        content.get("format") not in CHOICES
        or not _are_numbers([content.get("block")])
        or not _are_numbers(tokens)
        or min(tokens) < 1
    ):
        raise _wrong(LOSSES, "sensitivity")
    if not isinstance(layers, dict) or not layers:
        raise _wrong(LOSSES, "sensitivity")
    for its in layers.values():
        kl = its.get("window_kl") if isinstance(its, dict) else None
        if not isinstance(kl, dict) or not kl or not _are_numbers(its.get("shape"), 2) or min(its["shape"]) < 1:
            raise _wrong(LOSSES, "sensitivity")
        if not all(kind in CHOICES[content["format"]] and _are_numbers(sums, len(tokens)) for kind, sums in kl.items()):
            raise _wrong(LOSSES, "sensitivity")
    return content


def read_types(folder: Path) -> Allotment:
    """What `allocation` chose; UserError where that is not there, or something else is."""
    content = _read(folder / ASSIGNMENT, "allocation")
    types: Any = content.get("types")
    predicted: Any = content.get("predicted_kl")
    if not isinstance(types, dict) or not all(isinstance(kind, str) for kind in types.values()):
        raise _wrong(ASSIGNMENT, "allocation")
    if not _are_numbers(predicted, 3):
        raise _wrong(ASSIGNMENT, "allocation")
    value, low, high = predicted
    return Allotment(types, (value, low, high))


def write_types(out: Path, chosen: Allotment) -> None:
    write(out / ASSIGNMENT, asdict(chosen))


def _read(file: Path, step: str) -> dict[str, Any]:
    try:
        content = wire.read_json(file)
    except (OSError, ValueError):
        raise UserError(f"the model folder has no {file.name}: the step {step} writes it, and comes before") from None
    if not isinstance(content, dict):
        raise _wrong(file.name, step)
    return content


def _wrong(name: str, step: str) -> UserError:
    return UserError(f"{name} is not what the step {step} writes: make it again")


def _are_numbers(value: Any, count: int = 0) -> bool:
    """Whether it is a list of finite numbers above or at 0: so many of them, or one at least."""
    if not isinstance(value, list) or (len(value) != count if count else not value):
        return False
    return all(isinstance(each, int | float) and 0 <= each < math.inf for each in value)
