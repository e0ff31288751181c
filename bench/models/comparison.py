"""A checkpoint that somebody else made beside the suite's model: its tokenizer, its shape, its linear layers."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from bench import formats
from bench.contract import wire
from bench.contract.errors import UserError
from bench.contract.record import Architecture, Audit
from bench.contract.spec import Step
from bench.formats import folder as model_folder
from bench.formats import packing, tokenizer_files
from bench.models import standard, tokenization
from bench.models.resolve import Resolved

_SIZES = ("layers", "hidden", "heads", "kv_heads", "head_dim")
_EQUAL = 0.01  # of the parameters of all layers: formats count a few of them otherwise


@dataclass(frozen=True)
class Checkpoint:
    """`other_tokenizer` and `other_model`: how it differs from the suite's model, in a clause; "" where it does not.

    `linears`: the model's own linear layers, name -> (out, in), where the checkpoint stores these very ones.
    `as_steps`: its settings as options of the method that writes such files, for engines that ask a recipe's.
    """

    resolved: Resolved
    other_tokenizer: str = ""
    other_model: str = ""
    linears: Mapping[str, tuple[int, int]] | None = None
    as_steps: tuple[Step, ...] = ()


def compare(resolved: Resolved, model: Resolved, *, reads_text: bool) -> Checkpoint:
    """A checkpoint beside the suite's model, as far as both are on this machine; UserError for what is broken."""
    if resolved.folder is None:  # to be fetched first
        return Checkpoint(resolved)
    as_steps = _as_steps(resolved)
    if model.folder is None:
        return Checkpoint(resolved, as_steps=as_steps)
    other_tokenizer = tokenization.difference(model.folder, resolved.folder) if reads_text else ""
    linears = _linears(resolved.folder, model)
    other_model = _other_model(model.folder, resolved.folder, linears)
    if reads_text and not other_tokenizer:
        resolved = _with_same_tokenizer(resolved, model.folder)
    return Checkpoint(resolved, other_tokenizer, other_model, linears, as_steps)


def _as_steps(resolved: Resolved) -> tuple[Step, ...]:
    options = packing.options(resolved.source.config)
    return (Step(resolved.format, options),) if options else ()


def _with_same_tokenizer(resolved: Resolved, model: Path) -> Resolved:
    """With the model's tokenizer.json, which is as good, beside a file that has its own within: the same ids then."""
    file = model / tokenizer_files.FAST
    folder = resolved.local_folder
    if not formats.tokenizer_env(resolved.format) or (folder / tokenizer_files.FAST).is_file() or not file.is_file():
        return resolved
    identity = f"{resolved.identity}+{wire.digest(['tokenizer', wire.sha256(file)])}"
    return replace(resolved, folder=standard.with_files(folder, {file.name: file}), identity=identity)


def _linears(folder: Path, model: Resolved) -> Mapping[str, tuple[int, int]] | None:
    """The model's linear layers where the checkpoint has all of them, by their names: packed ones keep no shapes."""
    its = formats.source(folder)
    if its.linears:
        return None
    shapes = dict(model.source.linears)
    with suppress(UserError):  # none of them is stored under its name
        audit = formats.audit(folder, shapes)
        expected = sum(out * width for name, (out, width) in shapes.items() if not _is_tied(name, audit))
        return shapes if shapes and audit.linear_parameters == expected else None
    return None


def _is_tied(layer: str, audit: Audit) -> bool:
    return audit.tied_head and model_folder.is_head(layer)


def _other_model(model: Path, folder: Path, linears: Mapping[str, tuple[int, int]] | None) -> str:
    """How the checkpoint's shape differs from the model's: by architecture, else by the parameters of its layers."""
    one, two = formats.read_architecture(model), formats.read_architecture(folder)
    types = [_model_type(path) for path in (model, folder)]
    if all(types) and types[0] != types[1]:
        return f"{types[1]}, where the baseline is {types[0]}"
    if one and two:
        for size in _SIZES:
            if getattr(one, size) != getattr(two, size):
                return f"{_named(two)}, where the baseline has {_named(one)}"
    first, second = (
        _layer_parameters(path, shape, s) for path, shape, s in ((model, one, None), (folder, two, linears))
    )
    if abs(second - first) > _EQUAL * first:
        return f"{second / 1e6:.4g} million parameters in its layers, where the baseline has {first / 1e6:.4g}"
    return ""


def _model_type(folder: Path) -> str:
    """By config.json; "" where there is none, as beside a .gguf file."""
    if not folder.is_dir() or not (folder / model_folder.CONFIG).is_file():
        return ""
    return str(model_folder.text_config(model_folder.read_config(folder)).get("model_type") or "")


def _layer_parameters(folder: Path, shape: Architecture | None, linears: Mapping[str, tuple[int, int]] | None) -> int:
    """Of all linear layers but the head, which some formats store as a copy of the embedding."""
    audit = formats.audit(folder, linears)
    head = 0 if audit.tied_head or shape is None else audit.vocab_size * shape.hidden
    return audit.linear_parameters - head


def _named(shape: Architecture) -> str:
    heads = f"{shape.heads} heads of {shape.head_dim}, {shape.kv_heads} KV heads"
    return f"{shape.layers} layers of {shape.hidden} with {heads}"
