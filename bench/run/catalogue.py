"""`bench list`: what can be named in a suite, read from the directories that are the registry."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from bench.contract import plugins
from bench.run import config, paths, shapes

_PACKAGES = {"engines": plugins.ENGINES, "methods": plugins.METHODS, "tasks": plugins.TASKS}


def lines(what: str) -> Iterator[str]:
    """One line per name, with its options and their defaults where it has any."""
    if what == "shapes":
        yield from shapes.listed()
    elif what == "suites":
        for file in config.suites():
            yield f"{file.relative_to(paths.ROOT)}  {_first_comment(file.read_text())}"
    elif what == "recipes":
        recipes = config.named_recipes()
        width = max(map(len, recipes))
        for name, steps in recipes.items():
            yield f"{name:<{width}} {'; then '.join(_flat(step) for step in steps) or 'no steps'}"
    else:
        names = plugins.names(_PACKAGES[what])
        width = max(map(len, names))
        for name in names:
            module = plugins.load(_PACKAGES[what], name)
            options = ", ".join(f"{f.name}={f.default!r}" for f in dataclasses.fields(module.Options))
            yield f"{name:<{width}} {(module.__doc__ or '').splitlines()[0]}"
            yield f"{'':<{width}} options: {options or 'none'}"


def _flat(step: dict[str, object]) -> str:
    return ", ".join(f"{k}: {v}" for k, v in step.items())


def _first_comment(text: str) -> str:
    first = text.splitlines()[0] if text else ""
    return first.removeprefix("#").strip() if first.startswith("#") else ""
