"""What the two selectors of a comparison name: recipes, engines, devices, models, commits or folders of records."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from bench.contract import plugins
from bench.contract.errors import UserError
from bench.contract.record import Result
from bench.foreign import is_foreign
from bench.publish.compare import git
from bench.store import Store, is_record

RECIPE, ENGINE, DEVICE, MODEL, PAIR = "recipe", "engine", "device", "model", "recipe@engine"
COMMIT, FOLDER = "commit", "folder"
# The fields in which two selections of a kind differ by their nature; cells are matched on the others.
AXES: dict[str, tuple[str, ...]] = {kind: (kind,) for kind in (RECIPE, ENGINE, DEVICE, MODEL)}
AXES |= {PAIR: (RECIPE, ENGINE), COMMIT: (), FOLDER: ()}


@dataclass(frozen=True)
class Selection:
    """The records of one selector, with a label for headings. `problems`: a sentence for each unreadable file."""

    name: str
    kind: str
    label: str
    records: tuple[Result, ...]
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Filter:
    """Globs that records have to match, where not empty. `only` is that of a run: title, recipe or workload."""

    suites: tuple[str, ...] = ()
    device: str = ""
    only: str = ""
    engine: str = ""
    recipe: str = ""

    def matches(self, result: Result) -> bool:
        cell = result.cell
        globs = [((result.hardware.slug,), self.device), (_recipes(result), self.recipe)]
        if cell.measurement:  # an artifact has no engine of its own
            globs.append(((cell.engine.title,), self.engine))
        return (
            (not self.suites or any(fnmatchcase(result.suite, suite) for suite in self.suites))
            and all(not glob or any(fnmatchcase(name, glob) for name in names) for names, glob in globs)
            and any(fnmatchcase(name, self.only or "*") for name in cell.selectors)
        )


@dataclass(frozen=True)
class _Catalogue:
    """The records below a folder, and the names that they have of each kind."""

    root: Path
    records: Sequence[Result]
    problems: Sequence[str]
    names: Mapping[str, Sequence[str]]


def selections(first: str, second: str, results: Path, filters: Filter) -> tuple[Selection, Selection]:
    """Both, of one kind. UserError for a selector that names nothing or several kinds of thing, and for two kinds."""
    store = Store(results)
    records = list(store.all())
    names = {kind: sorted({n for r in records for n in _names(kind, r)}) for kind in (RECIPE, ENGINE, DEVICE, MODEL)}
    names[PAIR] = [f"{recipe}@{engine}" for recipe in names[RECIPE] for engine in names[ENGINE]]
    catalogue = _Catalogue(results, records, store.problems, names)
    a, b = (_resolve(selector, catalogue) for selector in (first, second))
    if AXES[a[0]] != AXES[b[0]]:
        recipe = next((name for kind, name in (a, b) if kind == RECIPE), "")
        hint = f": write {recipe}@ENGINE" if recipe and PAIR in (a[0], b[0]) else ""
        raise UserError(f"{a[1]} is {_a(a[0])} and {b[1]} is {_a(b[0])}, but only two of one kind compare{hint}")
    if a == b:
        raise UserError(f"both are the {a[0]} {a[1]}: name another to compare it with")
    one, two = (_select(kind, name, catalogue, filters) for kind, name in (a, b))
    return one, two


def _select(kind: str, name: str, catalogue: _Catalogue, filters: Filter) -> Selection:
    label, records, problems = f"{kind} {name}", catalogue.records, catalogue.problems
    if kind == COMMIT:
        full = git.commit(catalogue.root, name) or ""
        records, problems = git.records(catalogue.root, full)
        label += "" if full.startswith(name) else f" ({full[:9]})"
    elif kind == FOLDER:
        store = Store(Path(name))
        records, problems = list(store.all()), store.problems
    elif kind == PAIR:
        recipe, _, engine = name.rpartition("@")
        records = [r for r in records if recipe in _recipes(r) and _names(ENGINE, r) in ((), (engine,))]
    elif kind == RECIPE:
        records = [r for r in records if name in _recipes(r)]
    else:
        records = [r for r in records if name in _names(kind, r)]
    if kind != DEVICE and not is_foreign(filters.device):  # imported records are left out where they are not named
        records = [r for r in records if not is_foreign(r.hardware.slug)] or records
    return Selection(name, kind, label, tuple(filter(filters.matches, records)), tuple(problems))


def _recipes(result: Result) -> tuple[str, ...]:
    """The record's recipe; of a replicate also the one that it is of."""
    return tuple(filter(None, (result.cell.recipe.name, result.cell.recipe.replicate_of)))


def _names(kind: str, result: Result) -> tuple[str, ...]:
    """A record's name of this kind; no engine ran an artifact."""
    cell = result.cell
    if kind == ENGINE:
        return () if cell.workload is None and cell.task is None else (cell.engine.title,)
    return (cell.recipe.name if kind == RECIPE else result.hardware.slug if kind == DEVICE else cell.model.label,)


def _resolve(selector: str, catalogue: _Catalogue) -> tuple[str, str]:
    """Kind and name: as the selector says, in recipe:nf4, else of the only kind that has such a name."""
    prefix, _, rest = selector.partition(":")
    if prefix in AXES and rest:
        if not _exists(prefix, rest, catalogue):
            root = catalogue.root
            problems = {
                COMMIT: f"unknown commit '{rest}' in the repository of {root}: `git log --oneline` lists them",
                FOLDER: f"no records in the folder {rest}",
            }
            known = tuple(catalogue.names.get(prefix, ()))
            raise UserError(problems.get(prefix) or plugins.unknown(prefix, rest, known))
        return prefix, rest
    kinds, hint = [], "nor a commit or a folder with records"
    for kind in AXES:
        try:
            kinds += [kind] if _exists(kind, selector, catalogue) else []
        except UserError as error:  # no git, or no repository: no matter, where the selector is something else
            hint = str(error)
    if len(kinds) > 1:
        choices = " or ".join(f"{kind}:{selector}" for kind in kinds)
        raise UserError(f"'{selector}' is {' and '.join(map(_a, kinds))}: write {choices}")
    if not kinds and not catalogue.records:
        raise UserError(f"no records in {catalogue.root} to find '{selector}' in ({hint})")
    if not kinds:
        single = [name for kind, names in catalogue.names.items() if kind != PAIR for name in names]
        near = difflib.get_close_matches(selector, single)
        advice = f"did you mean {' or '.join(dict.fromkeys(near))}?" if near else "`python -m bench table` lists them"
        raise UserError(f"'{selector}' is not a recipe, engine, device or model of {catalogue.root}: {advice} ({hint})")
    return kinds[0], selector


def _exists(kind: str, name: str, catalogue: _Catalogue) -> bool:
    if kind == COMMIT:
        return git.commit(catalogue.root, name) is not None
    if kind == FOLDER:
        return Path(name).is_dir() and any(map(is_record, Path(name).rglob("r*.json")))
    return name in catalogue.names[kind]


def _a(kind: str) -> str:
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"
