"""Code that a model's folder brings: no library runs it, and a model that needs it is refused in one sentence.

Standard library only: workers import this.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.contract import wire

_FILES = ("config.json", "tokenizer_config.json")
_KEY = "auto_map"
# What libraries say of a model whose architecture or tokenizer they do not have.
_WITHOUT = re.compile(
    r"trust_remote_code|custom code|brings code of its own|transformers_modules"
    r"|does not recognize this architecture|are not supported for now"
    r"|Unrecognized (processing|configuration) class|Unrecognized model|Tokenizer class \S+ does not exist"
    r"|Model \S+ is not supported|is not a registered model",
    re.IGNORECASE,
)


def blocked(work: Path) -> dict[str, str]:
    """Variables of a process in the folder `work` that let no library import what a model brings.

    Whatever it trusts: gptqmodel trusts a tokenizer's, llama.cpp's converter too. Transformers copies such code to
    a folder of this name before it imports it, and here a file is in its place.
    """
    modules = work / "hf_modules"
    modules.mkdir(exist_ok=True)
    (modules / "transformers_modules").touch()
    return {"HF_MODULES_CACHE": str(modules)}


def needed(folder: Path, message: str) -> str:
    """The sentence that says so where a library's message is about code that the model in `folder` names; else ""."""
    if not _WITHOUT.search(message) or not (name := next(_names(folder), "")):
        return ""
    return (
        f"the model needs code of its own ({name[:100]}), which is not run here: name a model whose architecture and "
        "tokenizer the library has itself"
    )


def _names(folder: Path) -> Iterator[str]:
    """The classes for which config and tokenizer name code."""
    for file in _FILES:
        try:
            yield from _classes(wire.read_json(folder / file))
        except (OSError, ValueError):
            continue


def _classes(value: Any) -> Iterator[str]:
    """Those of an `auto_map`, at any depth."""
    if not isinstance(value, dict):
        return
    for key, inner in value.items():
        if key == _KEY and isinstance(inner, dict):
            for named in inner.values():
                yield from (str(each) for each in (named if isinstance(named, list) else [named]) if each)
        else:
            yield from _classes(inner)
