"""`bench list`: what can be named in a suite, read from the directories that are the registry."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from bench import paths
from bench.contract import plugins, speculation
from bench.models import architectures, dummy
from bench.suite import config

_PACKAGES = {"engines": plugins.ENGINES, "methods": plugins.METHODS, "tasks": plugins.TASKS}


def lines(what: str) -> Iterator[str]:
    """One line per name, with its options and their defaults where it has any."""
    entries = listed(what)
    width = max((len(entry["name"]) for entry in entries), default=0)
    for entry in entries:
        if "options" in entry:
            options = ", ".join(f"{name}={value!r}" for name, value in entry["options"].items())
            yield f"{entry['name']:<{width}} {entry['about']}"
            yield f"{'':<{width}} options: {options or 'none'}"
        elif "steps" in entry:
            steps = (", ".join(f"{key}: {_yaml(value)}" for key, value in step.items()) for step in entry["steps"])
            yield f"{entry['name']:<{width}} {'; then '.join(steps) or 'no steps'}"
        else:
            yield f"{entry['name']:<{width if what == 'architectures' else 0}}  {entry['about']}"


def listed(what: str) -> list[dict[str, Any]]:
    """The same for a program: an object per `name`."""
    if what == "shapes":
        sizes = {f"{dummy.PREFIX}{name}": dummy.parameters(dummy.settings(name)) for name in dummy.names()}
        return [{"name": source, "about": f"{size / 1e9:.3g} B parameters"} for source, size in sizes.items()]
    if what == "architectures":
        return [{"name": name, "about": architectures.summary(name)} for name in architectures.names()]
    if what == "suites":
        comments = {file: file.read_text().partition("\n")[0].removeprefix("# ") for file in config.suites()}
        return [{"name": str(file.relative_to(paths.ROOT)), "about": about} for file, about in comments.items()]
    if what == "recipes":
        return [{"name": name, "steps": list(steps)} for name, steps in config.named_recipes().items()]
    entries = []
    for name in plugins.names(_PACKAGES[what]):
        module = plugins.load(_PACKAGES[what], name)
        fields = sorted(dataclasses.fields(module.Options), key=lambda f: f.name in speculation.SINCE)  # its own first
        options = {f.name: f.default for f in fields}
        entries.append({"name": name, "about": (module.__doc__ or "").splitlines()[0], "options": options})
    return entries


def _yaml(value: object) -> str:
    """As a suite's file has it."""
    return str(value).lower() if isinstance(value, bool) else str(value)
