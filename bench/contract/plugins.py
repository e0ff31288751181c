"""The directory is the registry: a file, or a package, in a plugin package is a plugin of that name.

Folders that LLM_BENCH_PLUGINS names have more of them, in subfolders engines/, methods/, tasks/, formats/ and envs/.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal, overload

from bench.contract import hooks
from bench.contract.errors import UserError
from bench.contract.format import Format
from bench.contract.spec import Step

ENGINES: Final = "bench.engines"
METHODS: Final = "quantize.methods"
TASKS: Final = "eval.tasks"
FORMATS: Final = "bench.formats"
VARIABLE: Final = "LLM_BENCH_PLUGINS"
_CONSTANT = re.compile(r"^([A-Z][A-Z0-9_]*)\b *[:=]", re.MULTILINE)
_ROLES: dict[str, tuple[str, type]] = {
    ENGINES: ("engine", hooks.Engine),
    METHODS: ("method", hooks.Method),
    TASKS: ("task", hooks.Task),
    FORMATS: ("format", Format),
}


def user_folders(subfolder: str = "") -> list[Path]:
    """The folders of LLM_BENCH_PLUGINS (separated as in PATH), absolute; of each the subfolder, where it has it."""
    folders = [Path(f).expanduser().resolve() for f in os.environ.get(VARIABLE, "").split(os.pathsep) if f]
    return [folder / subfolder for folder in folders if (folder / subfolder).is_dir()]


def names(package: str) -> tuple[str, ...]:
    """The plugins of a package, sorted; nothing is imported but the package itself."""
    for folder in os.environ.get(VARIABLE, "").split(os.pathsep):
        if folder and not Path(folder).expanduser().is_dir():
            raise UserError(f"{VARIABLE}: no such folder: {folder}")
    folders = [Path(folder) for folder in importlib.import_module(package).__path__]
    files = {f.stem for folder in folders for f in folder.glob("*.py")}
    packages = {f.parent.name for folder in folders for f in folder.glob("*/__init__.py")}
    return tuple(sorted(name for name in files | packages if not name.startswith("_")))


@overload
def load(package: Literal["bench.engines"], name: str) -> hooks.Engine: ...
@overload
def load(package: Literal["quantize.methods"], name: str) -> hooks.Method: ...
@overload
def load(package: Literal["eval.tasks"], name: str) -> hooks.Task: ...
@overload
def load(package: Literal["bench.formats"], name: str) -> Format: ...
@overload
def load(package: str, name: str) -> Any: ...
@cache  # the planner asks thousands of times
def load(package: str, name: str) -> Any:
    """The plugin module with every hook of its role; UserError for an unknown plugin or hook, or a missing one."""
    kind, role = _ROLES[package]
    known = names(package)
    if name not in known:
        raise UserError(unknown(kind, name, known))
    plugin = importlib.import_module(f"{package}.{name}")
    for sentence in _complete(plugin, role):
        raise UserError(f"{kind} '{name}' ({plugin.__file__}): {sentence}")
    return plugin


def method_of(step: Step) -> tuple[hooks.Method, Any]:
    """A step's method, and its options as the method's Options; UserError for an option that it does not have."""
    method = load(METHODS, step.method)
    if unknown_options := step.options.keys() - inspect.signature(method.Options).parameters:
        raise UserError(f"{step.method} has no option {', '.join(sorted(unknown_options))}")
    return method, method.Options(**step.options)


def is_seeded(step: Step) -> bool:
    """Whether a step's result depends on its option `seed`; of what this version does not have, whether it has one."""
    try:
        method, options = method_of(step)
    except (UserError, TypeError):
        return "seed" in step.options
    return method.is_seeded(options)


def step_env(step: Step) -> str:
    """The environment that a step is taken in: its method's ENV, or the one its options choose."""
    method, options = method_of(step)
    return method.env(options)


def engine_env(engine: hooks.Engine, artifact_format: str) -> str:
    """The environment that an engine runs this format in: its ENV, or the one of ENV_BY_FORMAT."""
    return engine.ENV_BY_FORMAT.get(artifact_format, engine.ENV)


def unknown(kind: str, name: str, known: Sequence[str]) -> str:
    """'unknown engine 'hg': did you mean 'hf'? (known: fake, hf)'."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return f"unknown {kind} '{name}': {hint}(known: {', '.join(known)})"


def _complete(plugin: Any, role: type) -> Iterator[str]:
    """The faults of a plugin, a sentence each; adds the optional hooks that it lacks."""
    constants = tuple(role.__annotations__)
    functions = {k: v for k, v in vars(role).items() if inspect.isfunction(v) and not k.startswith("_")}
    for name in _public(plugin):
        if name not in constants and name not in functions:
            near = difflib.get_close_matches(name, [*constants, *functions], n=1)
            hint = f"did you mean '{near[0]}'?" if near else "a helper's name begins with an underscore"
            yield f"unknown hook '{name}': {hint}"
    for name in constants:
        if not hasattr(plugin, name):
            if not hasattr(role, name):
                yield f"lacks the constant {name}"
            setattr(plugin, name, getattr(role, name, None))
    for name, hook in functions.items():
        yield from _fault(plugin, name, hook, abstract=name in role.__abstractmethods__)  # type: ignore[attr-defined]


def _fault(plugin: Any, name: str, hook: Callable[..., Any], *, abstract: bool) -> Iterator[str]:
    condition, has = hooks.CONDITIONS.get(hook.__qualname__), hooks.plugin_has(plugin, name)
    required = condition(plugin) if condition else abstract
    signature = ", ".join(list(inspect.signature(hook).parameters)[1:])
    if has and condition and not required:
        yield f"has {name}(), which contradicts its constants or its other hooks: see bench/contract/hooks.py"
    elif has and (parameters := ", ".join(inspect.signature(getattr(plugin, name)).parameters)) != signature:
        yield f"{name}({parameters}): expected {name}({signature})"
    elif not has and required:
        yield f"lacks the function {name}({signature})"
    elif not has and not condition:
        setattr(plugin, name, hooks.Default(hook, plugin))


def _public(plugin: Any) -> list[str]:
    """Names of a module's own functions and classes, and of the constants in capitals that it assigns."""
    assigned = set(_CONSTANT.findall(Path(plugin.__file__).read_text(encoding="utf-8")))
    return [
        name
        for name, value in vars(plugin).items()
        if name in assigned
        or (not name.startswith("_") and callable(value) and getattr(value, "__module__", "") == plugin.__name__)
    ]
