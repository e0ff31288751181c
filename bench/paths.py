"""Where things are: the checkout's own files, and the cache that outlives it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "configs"


def cache() -> Path:
    """`LLM_BENCH_CACHE`, else `$XDG_CACHE_HOME/llm-bench`, else `~/.cache/llm-bench`."""
    if chosen := os.environ.get("LLM_BENCH_CACHE"):
        return Path(chosen).expanduser().resolve()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "llm-bench"


def scrubbed(text: str) -> str:
    """A reason as a record may show it: without the folders of this machine."""
    places = {str(cache()): "<cache>", str(ROOT): ".", tempfile.gettempdir(): "<tmp>", str(Path.home()): "~"}
    for place, word in places.items():
        text = text.replace(place, word)
    return text


def cache_folder(*parts: str) -> Path:
    """A folder of the cache, made if it is not there."""
    folder = cache().joinpath(*parts)
    folder.mkdir(parents=True, exist_ok=True)
    return folder
