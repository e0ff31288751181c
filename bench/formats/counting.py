"""The account of an artifact, from its linear layers and stored tensors: the same rules for every format."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.contract.errors import UserError
from bench.contract.record import Audit, Parameters
from bench.formats import folder as model_folder
from bench.formats.folder import Tensor

_NAMED_AT_MOST = 4
_GRAPHS = (".onnx", ".data", ".bin")  # of ONNX and OpenVINO


@dataclass(frozen=True)
class Linear:
    """A linear layer: its parameters, and the bytes of its weight with scales and zeros."""

    parameters: int
    size: int

    @property
    def is_quantized(self) -> bool:
        return 8 * self.size < 16 * self.parameters


def audit(
    name: str,
    files: Iterable[Path],
    linears: Mapping[str, Linear],
    tensors: Collection[Tensor],
    config: Mapping[str, Any],
    *,
    other_parameters: int,
    tied_head: bool,
    notes: Iterable[str] = (),
) -> Audit:
    """The record of a model of these files and stored weights; `other_parameters` are those outside linear layers."""
    count = sum(linear.parameters for linear in linears.values())
    if not count:
        raise UserError("the model's linear layers have no weights: it is not a language model, or its files are empty")
    size = sum(linear.size for linear in linears.values())
    return Audit(
        format=name,
        total_bytes=sum(file.stat().st_size for file in files),
        weight_bytes=sum(tensor.size for tensor in tensors),
        parameters=count + other_parameters,
        linear_parameters=count,
        linear_bytes=size,
        bits_per_weight=8 * size / count,
        quantized_fraction=sum(linear.parameters for linear in linears.values() if linear.is_quantized) / count,
        tied_head=tied_head,
        vocab_size=model_folder.vocab_size(config),
        context=model_folder.context_length(config),
        tensor_types=dict(sorted(Counter(tensor.dtype for tensor in tensors).items())),
        notes=tuple(notes),
    )


def stored_graph(folder: Path) -> Parameters:
    """Of a model whose graph is used as it is stored: the bytes of its files."""
    files = (file for file in folder.iterdir() if file.suffix in _GRAPHS and file.is_file())
    return Parameters(0, 0, sum(file.stat().st_size for file in files), None)


def all_files(folder: Path) -> list[Path]:
    return [file for file in folder.rglob("*") if file.is_file()]


def partly_quantized(linears: Mapping[str, Linear]) -> list[str]:
    """A note of the layers that were left wide, where others were not."""
    wide = [name for name, linear in linears.items() if not linear.is_quantized]
    return note("not quantized", sorted(wide)) if len(wide) < len(linears) else []


def note(fact: str, layers: Sequence[str], at_most: int = _NAMED_AT_MOST) -> list[str]:
    """'fact: a, b and 2 more', as a list; an empty one where there are no layers."""
    more = f" and {len(layers) - at_most} more" if len(layers) > at_most else ""
    return [f"{fact}: {', '.join(layers[:at_most])}{more}"] if layers else []
