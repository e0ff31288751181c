"""llama.cpp's converter, with the settings that it misses in what Transformers 5 makes of a config.

It would also run code that a model's folder brings (`trust_remote_code`), for its tokenizer: here nothing does.

`python -m quantize.backends.gguf_converter [--no-vocabulary] SCRIPT ARGUMENTS...` runs the converter's script. It reads
a config through Transformers, whose release 5 keeps what belongs to rotary positions in `rope_parameters`, drops the
names of before and writes GPT-2 without `n_ctx`; some of the converter's classes know the old names alone.
"""

from __future__ import annotations

import math
import runpy
import sys
from pathlib import Path
from typing import Any

from bench.contract import phase

_MIB = 2**20
_NO_VOCABULARY = "--no-vocabulary"
_THETA = 10000.0  # llama.cpp's own, where a file states none


def with_older_names(config: dict[str, Any]) -> dict[str, Any]:
    """The config with the names that the converter may ask for beside those that it has."""
    rope = config.get("rope_parameters")
    factor = rope.get("partial_rotary_factor") if isinstance(rope, dict) else None
    older = {"n_ctx": config.get("n_positions"), "rotary_pct": factor}
    return {**{name: value for name, value in older.items() if value is not None}, **config}


def main(arguments: list[str]) -> None:
    """Run the script with its own folder's modules, its model classes completed."""
    has_vocabulary = arguments[0] != _NO_VOCABULARY
    script, *rest = arguments if has_vocabulary else arguments[1:]
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
        return _completed(classes(*positional, **named), has_vocabulary=has_vocabulary)

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


def _completed(model: Any, *, has_vocabulary: bool) -> Any:
    """The class with a base of rotary frequencies where it would leave it out, and maybe without a vocabulary."""

    def set_gguf_parameters(self: Any) -> None:
        model.set_gguf_parameters(self)
        theta = getattr(self, "rope_parameters", {}).get("rope_theta", _THETA)
        if theta != _THETA and not _has_key(self, ".rope.freq_base"):
            self.gguf_writer.add_rope_freq_base(theta)

    def set_vocab(self: Any) -> None:
        """Of the vocabulary only its size."""
        self.gguf_writer.add_tokenizer_model("no_vocab")
        if not _has_key(self, ".vocab_size"):
            self.gguf_writer.add_vocab_size(self.hparams["vocab_size"])

    hooks = {"set_gguf_parameters": set_gguf_parameters, **({} if has_vocabulary else {"set_vocab": set_vocab})}
    return type(model.__name__, (model,), {**hooks, "model_arch": model.model_arch})


def _has_key(model: Any, ending: str) -> bool:
    return any(key.endswith(ending) for part in model.gguf_writer.kv_data for key in part)


if __name__ == "__main__":
    main(sys.argv[1:])
