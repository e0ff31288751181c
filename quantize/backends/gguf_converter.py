"""llama.cpp's converter, with the settings that it misses in what Transformers 5 makes of a config.

It would also run code that a model's folder brings (`trust_remote_code`), for its tokenizer: here nothing does.

`python -m quantize.backends.gguf_converter [--no-vocabulary | --vocabulary FILE] SCRIPT ARGUMENTS...` runs the
converter's script; a FILE of `write_vocabulary` has the tokenizer's metadata, as another GGUF file has it. It reads a
config through Transformers, whose release 5 keeps what belongs to rotary positions in `rope_parameters`, drops the
names of before and writes GPT-2 without `n_ctx`; some of the converter's classes know the old names alone.
"""

from __future__ import annotations

import json
import math
import runpy
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from bench.contract import phase

_MIB = 2**20
NO_VOCABULARY, VOCABULARY = "--no-vocabulary", "--vocabulary"
_TOKENIZER = "tokenizer."
_SENTENCEPIECE = "tokenizer.model"
_THETA = 10000.0  # llama.cpp's own, where a file states none


def with_older_names(config: dict[str, Any]) -> dict[str, Any]:
    """The config with the names that the converter may ask for beside those that it has."""
    rope = config.get("rope_parameters")
    factor = rope.get("partial_rotary_factor") if isinstance(rope, dict) else None
    older = {"n_ctx": config.get("n_positions"), "rotary_pct": factor}
    return {**{name: value for name, value in older.items() if value is not None}, **config}


def main(arguments: list[str]) -> None:
    """Run the script with its own folder's modules, its model classes completed."""
    set_vocab: Callable[[Any], None] | None = None
    if arguments[0] == NO_VOCABULARY:
        set_vocab, arguments = _set_size, arguments[1:]
    elif arguments[0] == VOCABULARY:
        set_vocab, arguments = partial(_set_stored, Path(arguments[1])), arguments[2:]
    script, *rest = arguments
    folder = str(Path(script).parent)
    sys.path[:0] = [folder, f"{folder}/gguf-py"]
    import conversion
    import tqdm
    from conversion.base import ModelBase
    from transformers import dynamic_module_utils

    dynamic_module_utils.get_class_in_module = _refuse
    tqdm.tqdm = _Bytes

    load, classes = ModelBase.load_hparams, conversion.get_model_class

    def load_hparams(*positional: Any, **named: Any) -> dict[str, Any]:
        return with_older_names(load(*positional, **named))

    def get_model_class(*positional: Any, **named: Any) -> Any:
        return _completed(classes(*positional, **named), set_vocab)

    ModelBase.load_hparams, conversion.get_model_class = staticmethod(load_hparams), get_model_class
    sys.argv = [script, *rest]
    runpy.run_path(script, run_name="__main__")


class _Bytes(phase.Bar):
    """In place of the bar over the bytes that are written, which the converter imports when it comes to that."""

    text = "converting: {done} of {total} MiB"

    def __init__(self, *positional: Any, total: float | None = None, **named: Any) -> None:
        self._bytes, self._of_bytes = 0.0, total or 0.0
        self._mib = math.ceil(self._of_bytes / _MIB)
        super().__init__(*positional, total=self._mib, **named)

    def update(self, n: float | None = 1) -> None:
        self._bytes += n or 0
        if self._steps is not None:
            self._steps.at(self._mib if self._bytes >= self._of_bytes else self._bytes / _MIB)


def _refuse(name: str, *_: Any, **__: Any) -> Any:
    """In place of what Transformers imports a class of a model's own code with."""
    raise ValueError(f"the model brings code of its own ({name}), which is not run: it needs a tokenizer without")


def write_vocabulary(source: Path, file: Path) -> None:
    """Write the metadata of a GGUF file's tokenizer as JSON: key -> [types, value]."""
    from gguf import GGUFReader

    fields = GGUFReader(source).fields.values()
    stored = {f.name: [[int(kind) for kind in f.types], f.contents()] for f in fields if f.name.startswith(_TOKENIZER)}
    file.write_text(json.dumps(stored), encoding="utf-8")


def _set_stored(file: Path, model: Any) -> None:
    """The vocabulary of a file of `write_vocabulary`."""
    from gguf.constants import GGUFValueType

    for key, (types, value) in json.loads(file.read_text(encoding="utf-8")).items():
        kind, *inner = map(GGUFValueType, types)
        model.gguf_writer.add_key_value(key, value, kind, *inner[:1])


def _set_size(model: Any) -> None:
    """Of the vocabulary only its size."""
    model.gguf_writer.add_tokenizer_model("no_vocab")
    if not _has_key(model, ".vocab_size"):
        model.gguf_writer.add_vocab_size(model.hparams["vocab_size"])


def _completed(model: Any, set_vocab: Callable[[Any], None] | None) -> Any:
    """The class with a base of rotary frequencies where it would leave it out, and maybe with another vocabulary."""

    def set_gguf_parameters(self: Any) -> None:
        model.set_gguf_parameters(self)
        theta = getattr(self, "rope_parameters", {}).get("rope_theta", _THETA)
        if theta != _THETA and not _has_key(self, ".rope.freq_base"):
            self.gguf_writer.add_rope_freq_base(theta)

    def own_vocab(self: Any) -> None:
        """The model's own, or the SentencePiece one beside it where the BPE tokenizer is unknown to the converter."""
        try:
            model.set_vocab(self)
        except NotImplementedError:
            if not (Path(self.dir_model) / _SENTENCEPIECE).is_file():
                raise
            self._set_vocab_sentencepiece()

    hooks = {"set_gguf_parameters": set_gguf_parameters, "set_vocab": _method(set_vocab) if set_vocab else own_vocab}
    return type(model.__name__, (model,), {**hooks, "model_arch": model.model_arch})


def _method(function: Callable[[Any], None]) -> Callable[[Any], None]:
    """As a class may have it, where a partial's would be given no `self`."""

    def call(self: Any) -> None:
        function(self)

    return call


def _has_key(model: Any, ending: str) -> bool:
    return any(key.endswith(ending) for part in model.gguf_writer.kv_data for key in part)


if __name__ == "__main__":
    main(sys.argv[1:])
