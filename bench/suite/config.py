"""A suite file to a Suite: short forms spelled out, options checked, a mistake as one sentence with its path."""

from __future__ import annotations

import copy
import dataclasses
import difflib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from bench import paths, yaml
from bench.contract import plugins, wire
from bench.contract.errors import UserError
from bench.contract.spec import ApiPrice, EngineSpec, HourPrice, Options, Recipe, Step, Suite, Task
from bench.contract.workload import KINDS, Trace, Workload
from bench.suite import local_data, option_groups, price, replicates
from bench.suite.option_groups import SHOWN, known_keys

T = TypeVar("T")
_NAME_KEYS = {"model": "source", "engines": "name", "tasks": "task"}  # of short forms
_MAX_DIGITS = 9
_MOST_ROUNDS = 10_000
_LARGEST = 10**15  # of any number: what is multiplied with it stays finite


def load_suite(path: Path, overrides: Sequence[str] = ()) -> Suite:
    """The suite in a YAML file, with `key=value` overrides (dotted keys, YAML values) laid over it."""
    data = _yaml(paths.shipped(path))
    for override in overrides:
        _override(data, override)
    data.setdefault("name", path.stem)
    _beside(data, path.parent)
    try:
        return suite(data)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _beside(data: dict[str, Any], folder: Path) -> None:
    """A relative path of a model that is not in the folder you run in, and is in the suite's own, is that one."""
    model = data.get("model")
    if path := _path_beside(model.get("source") if isinstance(model, dict) else model, folder):
        data["model"] = {**model, "source": path} if isinstance(model, dict) else path
    recipes: Any = data.get("recipes")
    for i, recipe in enumerate(recipes if isinstance(recipes, list) else ()):
        if isinstance(recipe, dict) and (path := _path_beside(recipe.get("checkpoint"), folder)):
            recipes[i] = {**recipe, "checkpoint": path}
    engines: Any = data.get("engines")
    for i, engine in enumerate(engines if isinstance(engines, list) else ()):
        group = engine.get("speculative") if isinstance(engine, dict) else None
        if isinstance(group, dict) and (path := _path_beside(group.get("draft"), folder)):
            engines[i] = {**engine, "speculative": {**group, "draft": path}}
    loads: Any = data.get("workloads")
    for i, load in enumerate(loads if isinstance(loads, list) else ()):
        if isinstance(load, dict) and (file := _file_that_ships(load.get("prompts"))):
            loads[i] = {**load, "prompts": file}


def _file_that_ships(path: Any) -> str:
    """Where a file of prompts that comes with the suites is; "" for another."""
    if not isinstance(path, str) or not path.startswith(f"{paths.CONFIGS.name}/"):
        return ""
    shipped = paths.shipped(Path(path))
    return str(shipped) if wire.is_file(shipped) else ""


def _path_beside(source: Any, folder: Path) -> str:
    """The path in the suite's folder that `source` may mean; "" where it means another, or none."""
    if not isinstance(source, str) or not source or Path(source).is_absolute():
        return ""
    try:
        missing = not paths.shipped(Path(source)).exists()
        return str((folder / source).resolve()) if missing and (folder / source).exists() else ""
    except (OSError, ValueError):
        return ""


def suite(data: Mapping[str, Any]) -> Suite:
    """A Suite from the mapping of a YAML file."""
    known_keys("", data, [f.name for f in dataclasses.fields(Suite)])
    full = {**data, "data": "" if data.get("data") is None else data["data"]}  # `--set data=` is no folder
    if isinstance(full.get("model"), str):
        full["model"] = {"source": full["model"]}
    for key, read in (("price_per_hour", hour_price), ("api_price", api_price)):
        full[key] = read(full.get(key), key)
    full["recipes"] = [_recipe(f"recipes[{i}]", r) for i, r in _items(full, "recipes")]
    full["engines"] = [_engine(f"engines[{i}]", e) for i, e in _items(full, "engines")]
    full["workloads"] = [workload(w, f"workloads[{i}]") for i, w in _items(full, "workloads")]
    full["tasks"] = [_task(f"tasks[{i}]", t) for i, t in _items(full, "tasks")]
    return local_data.settled(_checked(replicates.expanded(_validated(Suite, full, ""))))


def named_recipes() -> dict[str, Any]:
    """The recipes that have a name: configs/recipes.yaml."""
    return _yaml(paths.CONFIGS / "recipes.yaml")


def suites() -> list[Path]:
    """The suite files that ship."""
    return sorted(f for f in paths.CONFIGS.glob("*.yaml") if f.name != "recipes.yaml")


def recipe_named(name: str) -> Recipe:
    return Recipe(**_recipe(name, name))


def options(package: str, plugin: str, given: Mapping[str, Any], where: str) -> Options:
    """A plugin's options, the given ones over its defaults; UserError for unknown names and bad values."""
    module = plugins.load(package, plugin)
    kind = module.Options
    given = option_groups.flat(kind, given, where)
    known_keys(where, given, [f.name for f in dataclasses.fields(kind)])
    named = {
        k: f"path:{v}" if k in module.PATHS and v and not str(v).startswith("path:") else v for k, v in given.items()
    }
    return dataclasses.asdict(_validated(kind, named, where))


def workload(value: Any, where: str = "workload") -> Workload:
    """One workload; a field that its kind does not have is refused."""
    fields = _mapping(where, value)
    names = {kind: {f.name for f in dataclasses.fields(load)} for kind, load in KINDS.items()}
    kind = fields.get("kind", "offline")
    if not isinstance(kind, str) or kind not in names:
        raise UserError(f"{where}.kind: {plugins.unknown('kind', str(kind), tuple(names))}")
    known_keys(where, fields, [*dict.fromkeys(name for kinds in names.values() for name in sorted(kinds))])
    for field in fields.keys() - names[kind]:
        kinds = [other for other in names if field in names[other]]
        raise UserError(f"{where}.{field}: means nothing to kind: {kind}; set kind: {' or '.join(kinds)}")
    load = _validated(KINDS[kind], fields, where)
    if isinstance(load, Trace) and not Path(load.path).expanduser().is_file():
        raise UserError(
            f"workload {load.title}: {load.path} does not exist; a path is relative to the folder you run in, and no "
            "variable in it is filled in"
        )
    _check_prompts(load, fields, where)
    if fields.get("shared_prefix") is not None and "requests" in fields:
        raise UserError(f"{where}.requests: a shared_prefix has groups x turns requests; leave it out")
    return load


def _check_prompts(load: Workload, fields: Mapping[str, Any], where: str) -> None:
    """UserError for a file of prompts that is not there, and for lengths beside it, which are its own."""
    if isinstance(load, Trace) or not load.prompts:
        return
    if not Path(load.prompts).expanduser().is_file():
        raise UserError(
            f"workload {load.title}: {load.prompts} does not exist; a path is relative to the folder you run in, and "
            "no variable in it is filled in"
        )
    if "prompt_tokens" in fields:
        raise UserError(f"{where}.prompt_tokens: the prompts of a file have lengths of their own; leave it out")


def hour_price(value: Any, where: str) -> HourPrice | None:
    """The price of a machine's hour from its mapping or its text; None where there is none."""
    return _priced(HourPrice, price.hour_price, value, where)


def api_price(value: Any, where: str) -> ApiPrice | None:
    """The price of an API's tokens from its mapping or its text; None where there is none."""
    return _priced(ApiPrice, price.api_price, value, where)


def _priced(kind: type[T], parse: Callable[[str], T], value: Any, where: str) -> T | None:
    if value is None or isinstance(value, kind):
        return value
    try:
        return _validated(kind, value, where) if isinstance(value, dict) else parse(str(value))
    except (ValueError, UserError) as error:
        text = str(error)
        raise UserError(text if text.startswith(where) else f"{where}: {text}") from None


def body_fields(text: str) -> dict[str, Any]:
    """Fields of a request's body from their JSON."""
    try:
        fields = wire.parse(text)
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


def _recipe(where: str, value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        known = named_recipes()
        if value not in known:
            raise UserError(f"{where}: {plugins.unknown('recipe', value, tuple(known))}")
        value = {"name": value, "steps": known[value]}
    recipe = _mapping(where, value)
    known_keys(where, recipe, [f.name for f in dataclasses.fields(Recipe) if f.name != "replicate_of"])
    if "replicates" in recipe and not recipe.keys() & {"steps", "checkpoint"}:
        known, name = named_recipes(), str(recipe.get("name", ""))
        if name not in known:
            raise UserError(f"{where}: {plugins.unknown('recipe', name, tuple(known))}; or give it steps")
        recipe["steps"] = known[name]
    steps = [_step(f"{where}.steps[{i}]", s) for i, s in _items(recipe, "steps")]
    if recipe.get("checkpoint") and steps:
        raise UserError(f"{where}: a checkpoint is measured as it is: take its steps out, or the checkpoint")
    if recipe.get("revision") and not recipe.get("checkpoint"):
        raise UserError(f"{where}.revision: means nothing without a checkpoint; a model's own is model.revision")
    if recipe.get("checkpoint") and recipe.get("name") == "baseline":
        raise UserError(f"{where}: the baseline is the suite's own model: give the checkpoint another name")
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
        raise UserError(f"{where}: expected 'key: value' lines, got {repr(value)[:SHOWN]}")
    return dict(value)


def _checked(suite: Suite) -> Suite:
    """What types cannot say."""
    if not suite.recipes or not suite.engines:
        raise UserError("a suite needs at least one recipe and one engine")
    if not suite.workloads and not suite.tasks:
        raise UserError("a suite needs at least one workload or task, otherwise there is nothing to measure")
    for key, count in {"rounds": suite.rounds, "task_rounds": suite.task_rounds}.items():
        if not 1 <= count <= _MOST_ROUNDS:
            limit = "least 1" if count < 1 else f"most {_MOST_ROUNDS}"
            raise UserError(f"{key}: must be at {limit}, got {count}")
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
        return yaml.load_file(path)
    except FileNotFoundError:
        shipped = ", ".join(str(f.relative_to(paths.ROOT)) for f in suites())
        raise UserError(f"{path} does not exist; suites that ship: {shipped}") from None


def _override(data: dict[str, Any], override: str) -> None:
    """Lay `key=value` over the suite; a bare name on the way becomes the mapping that it stands for."""
    key, equals, value = override.partition("=")
    if not equals:
        raise UserError(f"--set {override}: write key=value, for example --set rounds=5")
    try:
        parsed = yaml.load(value)
    except UserError as error:
        raise UserError(f"--set {key}: {value!r} is {str(error).partition(': ')[2]}") from None
    *parents, last = key.split(".")
    node: Any = data
    for depth, part in enumerate(parents):
        at = _position(node, part, key)
        if isinstance(node[at], str) and depth == (parents[0] != "model"):
            node[at] = _spelled_out(parents[0], node[at])
        node[at] = copy.copy(node[at])  # another place may hold the very same, by a YAML alias
        node = node[at]
        if not isinstance(node, dict | list):
            raise UserError(f"--set {key}: '{part}' has no parts: it is {repr(node)[:SHOWN]} in the suite")
    if isinstance(node, list):
        node[_position(node, last, key)] = parsed
    else:
        node[last] = parsed


def _spelled_out(kind: str, name: str) -> Any:
    """What a bare name in the suite's `kind` stands for; the name itself where it stands for nothing."""
    if kind == "recipes":
        return {"name": name, "steps": named_recipes()[name]} if name in named_recipes() else name
    return {_NAME_KEYS[kind]: name} if kind in _NAME_KEYS else name


def _position(node: dict[str, Any] | list[Any], part: str, key: str) -> Any:
    """The key or the index in `node` that `part` names; UserError where there is none."""
    if isinstance(node, list):
        if part.isascii() and part.isdigit() and int(part[:_MAX_DIGITS]) < len(node):
            return int(part)
        places = f"0 to {len(node) - 1}" if len(node) > 1 else "0 alone" if node else "nowhere, as it is empty"
        raise UserError(f"--set {key}: a place in a list is a number, here {places}, and not '{part}'")
    if part not in node:
        near = difflib.get_close_matches(part, map(str, node), n=1)
        raise UserError(f"--set {key}: the suite has no '{part}'" + (f"; did you mean '{near[0]}'?" if near else ""))
    return part


def _validated(kind: type[T], fields: Mapping[str, Any], where: str) -> T:
    """`fields` as a dataclass; UserError with the first problem, as path: message (got value)."""
    try:
        built = TypeAdapter(kind).validate_python(fields)
    except ValidationError as error:
        raise UserError(_sentence(error.errors()[0], where)) from None
    _check_kind(where, fields, built)
    return built


def _check_kind(where: str, given: Any, read: Any) -> None:
    """UserError where a truth value would be read as a number, or the reverse, and for numbers out of bounds."""
    if isinstance(given, Mapping) and dataclasses.is_dataclass(read):
        for name, value in given.items():
            _check_kind(f"{where}.{name}" if where else name, value, getattr(read, name))
    elif isinstance(given, list) and isinstance(read, tuple):
        for position, pair in enumerate(zip(given, read, strict=False)):
            _check_kind(f"{where}[{position}]", *pair)
    elif isinstance(given, bool) != isinstance(read, bool) and isinstance(given, int | float):
        expected = "true or false" if isinstance(read, bool) else "a number"
        raise UserError(f"{where}: expected {expected}, got {str(given).lower()}")
    elif isinstance(read, int | float) and not abs(read) <= _LARGEST:
        raise UserError(f"{where}: expected a number of at most {_LARGEST:.0e}, got {str(read)[:SHOWN]}")


def _sentence(first: ErrorDetails, where: str) -> str:
    path = where
    for part in first["loc"]:
        if str(part).startswith("literal["):  # pydantic's name for one of several types, and no key of the file
            continue
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
    if first["type"] == "value_error":  # a dataclass's own check
        message = str(first["ctx"]["error"])
        return f"{path}: {message}" if first["loc"] else message
    message = first["msg"][:1].lower() + first["msg"][1:]
    shown = repr(first["input"])
    shown = shown if len(shown) <= SHOWN else f"{shown[:SHOWN]}…"
    got = "" if first["type"] == "missing" else f" (got {shown})"
    return f"{path}: {message}{got}"
