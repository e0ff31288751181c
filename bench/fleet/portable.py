"""A suite as nodes can read it: files that ship are named as they are everywhere, others by their whole path."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from bench import paths
from bench.contract.spec import EngineSpec, Options, Recipe, Step, Suite, Task
from bench.contract.workload import Trace, Workload

_FILE = "path:"


def suite(given: Suite) -> Suite:
    """The suite with absolute paths: of a folder that every node has under that name."""
    return replace(
        given,
        model=replace(given.model, source=_source(given.model.source)),
        recipes=tuple(map(_recipe, given.recipes)),
        engines=tuple(EngineSpec(e.name, _options(e.options), e.label) for e in given.engines),
        tasks=tuple(Task(t.kind, _options(t.options), t.name) for t in given.tasks),
        workloads=tuple(map(_workload, given.workloads)),
        data="",
    )


def _recipe(recipe: Recipe) -> Recipe:
    steps = tuple(Step(step.method, _options(step.options)) for step in recipe.steps)
    return replace(recipe, steps=steps, checkpoint=_source(recipe.checkpoint))


def _workload(load: Workload) -> Workload:
    if isinstance(load, Trace):
        return replace(load, path=_path(load.path))
    return replace(load, prompts=_path(load.prompts)) if load.prompts else load


def _options(options: Options) -> Options:
    return {
        name: f"{_FILE}{_path(value.removeprefix(_FILE))}"
        if isinstance(value, str) and value.startswith(_FILE)
        else value
        for name, value in options.items()
    }


def _source(source: str) -> str:
    """A model's: a Hub id, a shape or a name of the package index stays as it is."""
    if not source or ":" in source or not Path(source).expanduser().exists():
        return source
    return _path(source)


def _path(name: str) -> str:
    path = Path(name).expanduser()
    if not path.is_absolute() and (paths.ROOT / path).exists() and path.resolve() == (paths.ROOT / path).resolve():
        return name
    return str(path.absolute())
