"""Which architectures a library's own table has, known before anything is run.

The names in the file beside this one are the libraries' own (tests/quantize/test_architectures.py compares them).
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Literal

from bench.contract.record import Source

Library = Literal["llama.cpp's converter", "onnxruntime-genai's model builder"]


def unknown_reason(library: Library, source: Source) -> str | None:
    """Why the library writes no such model; None where it does, and where the config names no architecture."""
    named = source.config.get("architectures")
    names = [str(name) for name in named] if isinstance(named, list) else []
    if not names or names[0] in known(library):
        return None
    return f"{library} does not know the architecture {names[0]}"


@cache
def known(library: Library) -> frozenset[str]:
    """Names of classes, as `architectures` of a config.json has them."""
    table = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
    return frozenset(table[library])
