"""Artifact formats, read without any engine's library: each is a plugin (bench.contract.format).

Nothing outside this folder, the engines and the methods names one. The modules in `_SHARED` are no plugins.
`folder` is for workers too, so that only the standard library is imported here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from bench.contract import plugins
from bench.contract.format import Format
from bench.contract.record import Architecture, Audit, Parameters, Source
from bench.formats import folder as model_folder
from bench.formats import tokenizer_conversion

__path__.extend(map(str, plugins.user_folders("formats")))
CHECKPOINT = "hf"  # weights as they are published: plain floats in safetensors
_SHARED = frozenset(
    {
        *(
            "architecture",
            "checkpoint",
            "classes",
            "counting",
            "float_blocks",
            "folder",
            "gguf_reader",
            "gguf_tokenizer",
            "language_model",
        ),
        *("packing", "sentencepiece_model", "tokenizer_conversion", "tokenizer_files"),
    }
)


def detect(folder: Path) -> str:
    """The format of the model in `folder` (or file): by its plugin, else the quant_method of its config."""
    for plugin in _plugins():
        if name := plugin.detect(folder):
            return name
    config = model_folder.read_config(folder)
    return str(model_folder.quantization(config).get("quant_method") or CHECKPOINT)


def source(folder: Path) -> Source:
    """What a method may know of a model before it runs; UserError for missing or broken files."""
    name = detect(folder)
    return _plugin(name).source(name, folder)


def audit(folder: Path, reference: Mapping[str, tuple[int, int]] | None, *, zeros: bool = False) -> Audit:
    """Count what is stored; with `zeros` the zeros too, for which every weight is read.

    `reference` has the unquantized model's linear layers, name -> (out, in). Without it, and in formats whose
    layers have names of their own, layers and their parameters are read from the format itself. Bits per
    weight are 8 x bytes stored under a layer's name, biases apart, over its parameters.
    """
    name = detect(folder)
    return _plugin(name).audit(name, folder, reference, zeros=zeros)


def parameters(folder: Path) -> Parameters:
    """The model's parameters by how an engine keeps them in memory."""
    return _plugin(detect(folder)).parameters(folder)


def read_architecture(folder: Path) -> Architecture | None:
    """What the model computes per token; None for other than plain decoders."""
    return _plugin(detect(folder)).architecture(folder)


def stored_types(folder: Path) -> Mapping[str, str]:
    """The type that each linear layer is stored in, as q4_1; {} where the format has one for all."""
    return _plugin(detect(folder)).stored_types(folder)


def weight_files(*, downloaded: bool) -> list[str]:
    """Patterns of the files that hold weights in any format; with `downloaded` those fetched from the Hub."""
    chosen = (plugin for plugin in _plugins() if plugin.DOWNLOADED or not downloaded)
    return sorted({pattern for plugin in chosen for pattern in plugin.FILES})


def file_suffixes() -> tuple[str, ...]:
    """The suffixes of files that are models by themselves."""
    return tuple(plugin.SUFFIX for plugin in _single_file())


def of_suffix(suffix: str) -> str:
    """The format of files that are models by themselves, by their suffix; "" for other files."""
    return next((plugin.FORMATS[0] for plugin in _single_file() if suffix.lower() == plugin.SUFFIX), "")


def part_pattern(name: str) -> str:
    """A pattern of the files that belong to a single-file model of this name, on the Hub."""
    return next(p for p in _single_file() if name.lower().endswith(p.SUFFIX)).part_pattern(name)


def files(path: Path) -> tuple[Path, ...]:
    """The files of the model that the file `path` stands for: of a split one all parts, in order."""
    return next(plugin for plugin in _single_file() if path.suffix.lower() == plugin.SUFFIX).files(path)


def several_models(names: Sequence[str]) -> str:
    """A phrase for the files among `names` that are models by themselves, where they are several; else ""."""
    for plugin in _single_file():
        if phrase := plugin.several_models([name for name in names if name.lower().endswith(plugin.SUFFIX)]):
            return phrase
    return ""


def tokenizer_env(name: str) -> str:
    """The environment where the tokenizer in a model's file can be read; "" where a model has tokenizer files."""
    return _plugin(name).TOKENIZER_ENV


def write_tokenizer(folder: Path, out: Path) -> None:
    """Write the tokenizer in the model's file into `out`, in `tokenizer_env`; or made of its files beside it."""
    plugin = _plugin(detect(folder))
    if plugin.TOKENIZER_ENV:
        plugin.tokenizer(folder, out)
    else:
        tokenizer_conversion.convert(folder, out)


def holds_floats(name: str) -> bool:
    """Whether all weights of this format are plain floats, which engines convert to the type they compute in."""
    return name in _by_name() and _by_name()[name].FLOATS == "all"


def converts_floats(name: str) -> bool:
    """Whether engines convert at least what is not quantized, as embeddings, to the type they compute in."""
    return name in _by_name() and _by_name()[name].FLOATS != "none"


def _single_file() -> list[Format]:
    return [plugin for plugin in _plugins() if plugin.SUFFIX]


def _plugin(name: str) -> Format:
    """The plugin of a format; a checkpoint of a quant_method that none claims is read as packed ones are."""
    by_name = _by_name()
    return by_name.get(name, by_name["gptq"])


@cache
def _by_name() -> dict[str, Format]:
    return {name: plugin for plugin in _plugins() for name in plugin.FORMATS}


@cache
def _plugins() -> tuple[Format, ...]:
    """Every plugin, in the order of their names."""
    modules = [name for name in plugins.names(plugins.FORMATS) if name not in _SHARED]
    return tuple(plugins.load(plugins.FORMATS, name) for name in modules)
