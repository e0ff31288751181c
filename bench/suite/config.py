"""A suite file to a Suite: short forms spelled out, options checked, a mistake as one sentence with its path."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from bench import paths
from bench.contract import plugins
from bench.contract.errors import UserError
from bench.contract.spec import EngineSpec, Options, Recipe, Step, Suite, Task
from bench.contract.workload import KINDS, Trace, Workload

T = TypeVar("T")
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader without the base-60 numbers of YAML 1.1: `2:4` is a string, not 124."""

    yaml_implicit_resolvers = {  # noqa: RUF012  (PyYAML's attribute)
        first: [
            (tag, re.compile(f"(?!.*:){resolver.pattern}", resolver.flags)) if tag in _NUMBERS else (tag, resolver)
            for tag, resolver in resolvers
        ]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


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
    """A Suite from the mapping of a YAML file."""
    _known("", data, [f.name for f in dataclasses.fields(Suite)])
    full = dict(data)
    if isinstance(full.get("model"), str):
        full["model"] = {"source": full["model"]}
    full["recipes"] = [_recipe(f"recipes[{i}]", r) for i, r in _items(full, "recipes")]
    full["engines"] = [_engine(f"engines[{i}]", e) for i, e in _items(full, "engines")]
    full["workloads"] = [workload(w, f"workloads[{i}]") for i, w in _items(full, "workloads")]
    full["tasks"] = [_task(f"tasks[{i}]", t) for i, t in _items(full, "tasks")]
    return _checked(_validated(Suite, full, ""))


def named_recipes() -> dict[str, Any]:
    """The recipes that have a name: configs/recipes.yaml."""
    return _yaml(paths.CONFIGS / "recipes.yaml")


def yaml_value(text: str) -> Any:
    """The value of a YAML text; yaml.YAMLError for an invalid one."""
    return yaml.load(text, Loader=_Loader)  # noqa: S506  (a subclass of the safe one)


def suites() -> list[Path]:
    """The suite files that ship."""
    return sorted(f for f in paths.CONFIGS.glob("*.yaml") if f.name != "recipes.yaml")


def recipe_named(name: str) -> Recipe:
    return Recipe(**_recipe(name, name))


def options(package: str, plugin: str, given: Mapping[str, Any], where: str) -> Options:
    """A plugin's options, the given ones over its defaults; UserError for unknown names and bad values."""
    module = plugins.load(package, plugin)
    kind = module.Options
    _known(where, given, [f.name for f in dataclasses.fields(kind)])
    named = {
        k: f"path:{v}" if k in module.PATHS and v and not str(v).startswith("path:") else v for k, v in given.items()
    }
    return dataclasses.asdict(_validated(kind, named, where))


def workload(value: Any, where: str = "workload") -> Workload:
    """One workload; a field that its kind does not have is refused."""
    fields = _mapping(where, value)
    names = {kind: {f.name for f in dataclasses.fields(load)} for kind, load in KINDS.items()}
    kind = fields.get("kind", "offline")
    if kind not in names:
        raise UserError(f"{where}.kind: {plugins.unknown('kind', str(kind), tuple(names))}")
    _known(where, fields, [*dict.fromkeys(name for kinds in names.values() for name in sorted(kinds))])
    for field in fields.keys() - names[kind]:
        kinds = [other for other in names if field in names[other]]
        raise UserError(f"{where}.{field}: means nothing to kind: {kind}; set kind: {' or '.join(kinds)}")
    load = _validated(KINDS[kind], fields, where)
    if isinstance(load, Trace) and not Path(load.path).expanduser().is_file():
        raise UserError(
            f"workload {load.title}: {load.path} does not exist; a path is relative to the folder you run in"
        )
    return load


def body_fields(text: str) -> dict[str, Any]:
    """Fields of a request's body from their JSON."""
    try:
        return TypeAdapter(dict[str, Any]).validate_json(text)
    except ValidationError:
        raise UserError(f'{text!r} is not a JSON object: expected {{"field": value}}') from None


def _items(data: Mapping[str, Any], key: str) -> list[tuple[int, Any]]:
    items = data.get(key) or []
    if not isinstance(items, list):
        raise UserError(f"{key}: expected a list (lines that start with '- '), got {type(items).__name__}")
    return list(enumerate(items))


def _recipe(where: str, value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        known = named_recipes()
        if value not in known:
            raise UserError(f"{where}: {plugins.unknown('recipe', value, tuple(known))}")
        value = {"name": value, "steps": known[value]}
    recipe = _mapping(where, value)
    _known(where, recipe, [f.name for f in dataclasses.fields(Recipe)])
    steps = [_step(f"{where}.steps[{i}]", s) for i, s in _items(recipe, "steps")]
    return {**recipe, "steps": tuple(steps)}


def _step(where: str, value: Any) -> Step:
    entry = _mapping(where, value)
    return Step(*_plugin(where, plugins.METHODS, "a step needs a method", entry, "method"))


def _engine(where: str, value: Any) -> EngineSpec:
    entry = {"name": value} if isinstance(value, str) else _mapping(where, value)
    label = entry.pop("label", "")
    return EngineSpec(*_plugin(where, plugins.ENGINES, "an engine needs a name", entry, "name"), label)


def _task(where: str, value: Any) -> Task:
    entry = {"task": value} if isinstance(value, str) else _mapping(where, value)
    name = entry.pop("name", "")
    kind, full = _plugin(where, plugins.TASKS, "a task needs 'task: …'", entry, "task")
    module = plugins.load(plugins.TASKS, kind)
    return Task(kind, full, name or module.title(module.Options(**full)))


def _plugin(where: str, package: str, rule: str, entry: dict[str, Any], key: str) -> tuple[str, Options]:
    """The plugin that the entry names under `key`, and its options: the entry's other keys over the defaults."""
    if key not in entry:
        raise UserError(f"{where}: {rule} (known: {', '.join(plugins.names(package))})")
    name = entry.pop(key)
    try:
        return name, options(package, str(name), entry, where)
    except UserError as error:
        text = str(error)
        raise UserError(text if text.startswith(where) else f"{where}: {text}") from None


def _mapping(where: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"{where}: expected 'key: value' lines, got {value!r}")
    return dict(value)


def _known(where: str, entry: Mapping[str, Any], known: Sequence[str]) -> None:
    for key in entry:
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
        if twice := {t for t in titles if titles.count(t) > 1}:
            raise UserError(f"two {kind}s are called '{twice.pop()}'; give one of them another name or label")
    return suite


def _yaml(path: Path) -> dict[str, Any]:
    try:
        data = yaml_value(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        shipped = ", ".join(str(f.relative_to(paths.ROOT)) for f in suites())
        raise UserError(f"{path} does not exist; suites that ship: {shipped}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        raise UserError(f"{path}{line}: not valid YAML: {getattr(error, 'problem', None) or error}") from None
    if not isinstance(data, dict):
        raise UserError(f"{path}: expected 'key: value' lines at the top")
    return data


def _override(data: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals:
        raise UserError(f"--set {override}: write key=value, for example --set rounds=5")
    *parents, last = key.split(".")
    node: Any = data
    for part in parents:
        if isinstance(node, dict) and isinstance(node.get(part), str):
            node[part] = {"source": node[part]} if part == "model" else {"name": node[part]}
        node = node[int(part)] if isinstance(node, list) and part.isdigit() else node.get(part)
        if not isinstance(node, dict | list):
            raise UserError(f"--set {key}: the suite has no '{part}'")
    parsed = yaml_value(value)
    if isinstance(node, list) and last.isdigit() and int(last) < len(node):
        node[int(last)] = parsed
    elif isinstance(node, dict):
        node[last] = parsed
    else:
        raise UserError(f"--set {key}: the suite has no '{last}' there")


def _validated(kind: type[T], fields: Mapping[str, Any], where: str) -> T:
    """`fields` as a dataclass; UserError with the first problem, as path: message (got value)."""
    try:
        return TypeAdapter(kind).validate_python(fields)
    except ValidationError as error:
        raise UserError(_sentence(error.errors()[0], where)) from None


def _sentence(first: ErrorDetails, where: str) -> str:
    path = where
    for part in first["loc"]:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
    if first["type"] == "value_error":  # a dataclass's own check
        message = str(first["ctx"]["error"])
        return f"{path}: {message}" if first["loc"] else message
    message = first["msg"][:1].lower() + first["msg"][1:]
    got = "" if first["type"] == "missing" else f" (got {first['input']!r})"
    return f"{path}: {message}{got}"
