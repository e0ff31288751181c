"""A suite file to a Suite: short forms spelled out, plugins' options checked.

Every mistake is one sentence that names its place.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from bench import paths
from bench.contract import plugins
from bench.contract.errors import UserError
from bench.contract.spec import EngineSpec, Options, Recipe, Step, Suite, Task
from bench.contract.workload import KINDS, Trace, Workload
from bench.suite import yaml as plain_yaml

# Words a user writes that stand for a field of another name.
_TASK_WORD, _ENGINE_WORD = "task", "name"


def load_suite(path: Path, overrides: Sequence[str] = ()) -> Suite:
    """The suite in a YAML file, with `key=value` overrides (dotted keys, YAML values) laid over it."""
    data = _yaml(paths.shipped(path))
    for override in overrides:
        _override(data, override)
    data.setdefault("name", path.stem)
    try:
        return suite(data)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def suite(data: Mapping[str, Any]) -> Suite:
    """A Suite from the mapping a YAML file holds."""
    _known("", data, [f.name for f in dataclasses.fields(Suite)])
    full = dict(data)
    if isinstance(full.get("model"), str):
        full["model"] = {"source": full["model"]}
    full["recipes"] = [_recipe(f"recipes[{i}]", r) for i, r in _items(full, "recipes")]
    full["engines"] = [_engine(f"engines[{i}]", e) for i, e in _items(full, "engines")]
    full["workloads"] = [workload(w, f"workloads[{i}]") for i, w in _items(full, "workloads")]
    full["tasks"] = [_task(f"tasks[{i}]", t) for i, t in _items(full, "tasks")]
    try:
        checked = TypeAdapter(Suite).validate_python(full)
    except ValidationError as error:
        raise UserError(_sentence(error)) from None
    return _checked(checked)


def named_recipes() -> dict[str, Any]:
    """The recipes that have a name: configs/recipes.yaml."""
    return _yaml(paths.CONFIGS / "recipes.yaml")


def suites() -> list[Path]:
    """The suite files that ship."""
    return sorted(f for f in paths.CONFIGS.glob("*.yaml") if f.name != "recipes.yaml")


def recipe_named(name: str) -> Recipe:
    return Recipe(**_recipe(name, name))


def options(package: str, plugin: str, given: Mapping[str, Any], where: str) -> Options:
    """Every option of a plugin with the given ones laid over its defaults.

    Unknown names and bad values are refused.
    """
    module = plugins.load(package, plugin)
    kind = module.Options
    _known(where, given, [f.name for f in dataclasses.fields(kind)])
    named = {
        k: f"path:{v}" if k in module.PATHS and v and not str(v).startswith("path:") else v for k, v in given.items()
    }
    try:
        return dataclasses.asdict(TypeAdapter(kind).validate_python(named))
    except ValidationError as error:
        raise UserError(_sentence(error, where)) from None


def workload(given: Any, where: str = "workload") -> Workload:
    """One workload; a field that means nothing to its kind would be ignored, and is refused."""
    fields = _mapping(where, given)
    names = {kind: {f.name for f in dataclasses.fields(load)} for kind, load in KINDS.items()}
    kind = fields.get("kind", "offline")
    if kind not in names:
        raise UserError(f"{where}.kind: {plugins.unknown('kind', str(kind), tuple(names))}")
    _known(where, fields, [*dict.fromkeys(name for kinds in names.values() for name in sorted(kinds))])
    for field in fields.keys() - names[kind]:
        kinds = [other for other in names if field in names[other]]
        raise UserError(f"{where}.{field}: means nothing to kind: {kind}; set kind: {' or '.join(kinds)}")
    try:
        load: Workload = TypeAdapter(KINDS[kind]).validate_python(fields)
    except ValidationError as error:
        raise UserError(_sentence(error, where)) from None
    if isinstance(load, Trace) and not Path(load.path).expanduser().is_file():
        raise UserError(
            f"workload {load.title}: {load.path} does not exist; a path is relative to the folder you run in"
        )
    return load


def body_fields(text: str) -> dict[str, Any]:
    """Fields of a request's body from their JSON."""
    try:
        fields = json.loads(text)
    except ValueError as error:
        raise UserError(f'{text!r} is not JSON ({error}): expected {{"field": value}}') from None
    if not isinstance(fields, dict):
        raise UserError(f'{text!r} is not a JSON object: expected {{"field": value}}')
    return fields


def _items(data: Mapping[str, Any], key: str) -> list[tuple[int, Any]]:
    items = data.get(key) or []
    if not isinstance(items, list):
        raise UserError(f"{key}: expected a list (lines that start with '- '), got {type(items).__name__}")
    return list(enumerate(items))


def _recipe(where: str, given: Any) -> dict[str, Any]:
    if isinstance(given, str):
        known = named_recipes()
        if given not in known:
            raise UserError(f"{where}: {plugins.unknown('recipe', given, tuple(known))}")
        given = {"name": given, "steps": known[given]}
    given = _closed(where, given, Recipe)
    steps = [_step(f"{where}.steps[{i}]", s) for i, s in _items(given, "steps")]
    return {**given, "steps": tuple(steps)}


def _step(where: str, given: Any) -> Step:
    given = _mapping(where, given)
    if "method" not in given:
        raise UserError(f"{where}: a step needs a method (known: {', '.join(plugins.names(plugins.METHODS))})")
    rest = {k: v for k, v in given.items() if k != "method"}
    return Step(given["method"], _located(where, plugins.METHODS, given["method"], rest))


def _engine(where: str, given: Any) -> EngineSpec:
    given = {_ENGINE_WORD: given} if isinstance(given, str) else _mapping(where, given)
    if _ENGINE_WORD not in given:
        raise UserError(f"{where}: an engine needs a name (known: {', '.join(plugins.names(plugins.ENGINES))})")
    rest = {k: v for k, v in given.items() if k not in (_ENGINE_WORD, "label")}
    name = given[_ENGINE_WORD]
    return EngineSpec(name, _located(where, plugins.ENGINES, name, rest), given.get("label", ""))


def _task(where: str, given: Any) -> Task:
    given = {_TASK_WORD: given} if isinstance(given, str) else _mapping(where, given)
    if _TASK_WORD not in given:
        raise UserError(f"{where}: a task needs 'task: …' (known: {', '.join(plugins.names(plugins.TASKS))})")
    kind = given[_TASK_WORD]
    rest = {k: v for k, v in given.items() if k not in (_TASK_WORD, "name")}
    full = _located(where, plugins.TASKS, kind, rest)
    module = plugins.load(plugins.TASKS, kind)
    return Task(kind, full, given.get("name") or module.title(module.Options(**full)))


def _located(where: str, package: str, name: Any, given: Mapping[str, Any]) -> Options:
    try:
        return options(package, str(name), given, where)
    except UserError as error:
        text = str(error)
        raise UserError(text if text.startswith(where) else f"{where}: {text}") from None


def _closed(where: str, given: Any, kind: type) -> dict[str, Any]:
    whole = _mapping(where, given)
    _known(where, whole, [f.name for f in dataclasses.fields(kind)])
    return whole


def _mapping(where: str, given: Any) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise UserError(f"{where}: expected 'key: value' lines, got {given!r}")
    return dict(given)


def _known(where: str, given: Mapping[str, Any], known: Sequence[str]) -> None:
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else f" (known: {', '.join(known)})"
            raise UserError(f"{where + '.' if where else ''}{key}: unknown key{hint}")


def _checked(suite: Suite) -> Suite:
    """What types cannot say."""
    if not suite.recipes or not suite.engines:
        raise UserError("a suite needs at least one recipe and one engine")
    if not suite.workloads and not suite.tasks:
        raise UserError("a suite needs at least one workload or task, otherwise there is nothing to measure")
    for key, count in {"rounds": suite.rounds, "task_rounds": suite.task_rounds}.items():
        if count < 1:
            raise UserError(f"{key}: must be at least 1, got {count}")
    for kind, titles in {
        "recipe": [r.name for r in suite.recipes],
        "engine": [e.title for e in suite.engines],
        "workload or task": [*(w.title for w in suite.workloads), *(t.title for t in suite.tasks)],
    }.items():
        twice = {t for t in titles if titles.count(t) > 1}
        if twice:
            raise UserError(f"two {kind}s are called '{twice.pop()}'; give one of them another name or label")
    return suite


def _yaml(path: Path) -> dict[str, Any]:
    try:
        data = plain_yaml.load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        shipped = ", ".join(str(f.relative_to(paths.ROOT)) for f in suites())
        raise UserError(f"{path} does not exist; suites that ship: {shipped}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    except yaml.YAMLError as error:
        place = getattr(error, "problem_mark", None)
        line = f" line {place.line + 1}" if place else ""
        raise UserError(f"{path}{line}: not valid YAML: {getattr(error, 'problem', None) or error}") from None
    if not isinstance(data, dict):
        raise UserError(f"{path}: expected 'key: value' lines at the top")
    return data


def _override(data: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals:
        raise UserError(f"--set {override}: write key=value, for example --set rounds=5")
    *parents, last = key.split(".")
    place: Any = data
    for part in parents:
        if isinstance(place, dict) and isinstance(place.get(part), str):
            place[part] = {"source": place[part]} if part == "model" else {"name": place[part]}
        place = place[int(part)] if isinstance(place, list) and part.isdigit() else place.get(part)
        if not isinstance(place, dict | list):
            raise UserError(f"--set {key}: the suite has no '{part}'")
    parsed = plain_yaml.load(value)
    if isinstance(place, list) and last.isdigit() and int(last) < len(place):
        place[int(last)] = parsed
    elif isinstance(place, dict):
        place[last] = parsed
    else:
        raise UserError(f"--set {key}: the suite has no '{last}' there")


def _sentence(error: ValidationError, where: str = "") -> str:
    """The first problem pydantic found, as path: message (got value)."""
    first = error.errors()[0]
    path = where
    for part in first["loc"]:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
    if first["type"] == "value_error":  # a dataclass's own check
        message = str(first["ctx"]["error"])
        return f"{path}: {message}" if first["loc"] else message
    message = first["msg"][:1].lower() + first["msg"][1:]
    got = "" if first["type"] == "missing" else f" (got {first['input']!r})"
    return f"{path}: {message}{got}"
