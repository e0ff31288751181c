"""The directory is the registry: a file, or a package, in a plugin package is a plugin of that name."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

from bench.contract.errors import UserError

ENGINES, METHODS, TASKS, FORMATS = "bench.engines", "quantize.methods", "eval.tasks", "bench.formats"
_WORDS = {ENGINES: "engine", METHODS: "method", TASKS: "task", FORMATS: "format"}


def names(package: str) -> tuple[str, ...]:
    """The plugins of a package, sorted; nothing is imported but the package itself."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return ()
    folders = [Path(folder) for folder in spec.submodule_search_locations]
    files = {f.stem for folder in folders for f in folder.glob("*.py")}
    packages = {f.parent.name for folder in folders for f in folder.glob("*/__init__.py")}
    return tuple(sorted(name for name in files | packages if not name.startswith("_")))


def load(package: str, name: str) -> Any:
    """The plugin module; an unknown name is a UserError that suggests the nearest one."""
    loaded = sys.modules.get(f"{package}.{name}")
    if loaded is not None and not name.startswith("_"):
        return loaded  # the planner asks thousands of times
    known = names(package)
    if name not in known:
        raise UserError(unknown(_WORDS.get(package, "plugin"), name, known))
    return importlib.import_module(f"{package}.{name}")


def unknown(word: str, name: str, known: tuple[str, ...]) -> str:
    """'unknown engine 'hg': did you mean 'hf'? (known: fake, hf)'."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return f"unknown {word} '{name}': {hint}(known: {', '.join(known)})"
