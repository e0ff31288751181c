"""Where things are: the files that ship, and the cache that outlives a checkout."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path

from bench.contract import outside
from bench.contract.errors import UserError

_PACKAGES = ("bench", "quantize", "eval")
_INSTALLED = Path(__file__).resolve().parent / "data"  # configs and the demo model in a wheel; none in a checkout
_SOURCE = Path(__file__).resolve().parents[1]
ROOT = _INSTALLED if _INSTALLED.is_dir() else _SOURCE
CONFIGS = ROOT / "configs"


def shipped(path: Path) -> Path:
    """The path itself, or the file that ships under that name where there is none here (configs/smoke.yaml)."""
    ours = ROOT / path
    return ours if not path.is_absolute() and not path.exists() and ours.exists() else path


def import_root() -> Path:
    """A folder with this suite's packages and no others: the PYTHONPATH of processes in other environments.

    In a checkout its root; where the suite is installed among other packages, a folder of links in the cache.
    """
    if ROOT == _SOURCE:
        return ROOT
    folder = cache_folder("code", hashlib.sha256(str(_SOURCE).encode()).hexdigest()[:12])
    for package in _PACKAGES:
        with contextlib.suppress(FileExistsError):
            (folder / package).symlink_to(_SOURCE / package, target_is_directory=True)
    return folder


def cache() -> Path:
    """`LLM_BENCH_CACHE`, else `$XDG_CACHE_HOME/llm-bench`, else `~/.cache/llm-bench`."""
    if chosen := os.environ.get("LLM_BENCH_CACHE"):
        return Path(chosen).expanduser().resolve()
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "llm-bench"
    except RuntimeError:
        raise UserError("no home folder for the cache: set LLM_BENCH_CACHE to a folder that can be written") from None


def scrubbed(text: str) -> str:
    """A reason as a record may show it: without the folders of this machine, and without secrets."""
    if not text:
        return text
    text = outside.scrubbed(text)
    places = {str(cache()): "<cache>", str(ROOT): ".", tempfile.gettempdir(): "<tmp>"}
    with contextlib.suppress(RuntimeError):  # a user without a home
        places[str(Path.home())] = "~"
    for place, word in places.items():
        text = text.replace(place, word)
    return text


def cache_folder(*parts: str) -> Path:
    """A folder of the cache, made if it is not there; UserError where it cannot be."""
    folder = cache().joinpath(*parts)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"the cache {cache()} cannot be used ({error.strerror}: {error.filename}); "
            "set LLM_BENCH_CACHE to a folder that can be written"
        ) from error
    return folder
