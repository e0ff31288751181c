"""What the two selectors of a comparison name: recipes, engines, devices, models, commits or folders of records."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

from bench.contract import plugins
from bench.contract.errors import UserError
from bench.contract.record import Result
from bench.publish.compare import git
from bench.store import Store, is_record

RECIPE, ENGINE, DEVICE, MODEL, PAIR = "recipe", "engine", "device", "model", "recipe@engine"
COMMIT, FOLDER = "commit", "folder"
# The fields in which two selections of a kind differ by their nature; cells are matched on the others.
AXES = {
    RECIPE: (RECIPE,),
    ENGINE: (ENGINE,),
    DEVICE: (DEVICE,),
    MODEL: (MODEL,),
    PAIR: (RECIPE, ENGINE),
    COMMIT: (),
    FOLDER: (),
}


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
        globs = [(self.device, result.hardware.slug), (self.recipe, cell.recipe.name)]
        if cell.measurement:  # an artifact has no engine of its own
            globs.append((self.engine, cell.engine.title))
        return (
            (not self.suites or any(fnmatchcase(result.suite, suite) for suite in self.suites))
            and all(not glob or fnmatchcase(name, glob) for glob, name in globs)
            and any(fnmatchcase(name, self.only or "*") for name in (cell.title, cell.recipe.name, cell.measurement))
        )


@dataclass(frozen=True)
class _Catalogue:
    """The records below a folder, and the names that they have of each kind."""

    root: Path
    records: Sequence[Result]
    problems: tuple[str, ...]
    names: Mapping[str, Sequence[str]]


def selections(first: str, second: str, results: Path, filters: Filter) -> tuple[Selection, Selection]:
    """Both, of one kind; a commit and a folder are of one, records of different days.

    UserError for a selector that names nothing or several kinds of thing, and for two kinds.
    """
    store = Store(results)
    records = tuple(store.all())
    names = {kind: sorted({n for r in records for n in _names(kind, r)}) for kind in (RECIPE, ENGINE, DEVICE, MODEL)}
    catalogue = _Catalogue(results, records, tuple(store.problems), names)
    a, b = (_resolve(selector, catalogue) for selector in (first, second))
    if AXES[a[0]] != AXES[b[0]]:
        recipe = next((name for kind, name in (a, b) if kind == RECIPE), "")
        hint = f": write {recipe}@ENGINE" if recipe and PAIR in (a[0], b[0]) else ""
        raise UserError(f"{a[1]} is {_a(a[0])} and {b[1]} is {_a(b[0])}, but only two of one kind compare{hint}")
    if a == b:
        raise UserError(f"both are the {a[0]} {a[1]}: name another to compare it with")
    one, two = (_select(kind, name, catalogue) for kind, name in (a, b))
    return _filtered(one, filters), _filtered(two, filters)


def _filtered(selection: Selection, filters: Filter) -> Selection:
    return replace(selection, records=tuple(filter(filters.matches, selection.records)))


def _select(kind: str, name: str, catalogue: _Catalogue) -> Selection:
    if kind == COMMIT:
        full = git.commit(catalogue.root, name) or ""
        records, problems = git.records(catalogue.root, full)
        label = name if full.startswith(name) else f"{name} ({full[:9]})"
        return Selection(name, kind, f"commit {label}", tuple(records), tuple(problems))
    if kind == FOLDER:
        store = Store(Path(name))
        return Selection(name, kind, f"folder {name}", tuple(store.all()), tuple(store.problems))
    matching = tuple(r for r in catalogue.records if _matches(kind, name, r))
    return Selection(name, kind, f"{kind} {name}", matching, catalogue.problems)


def _matches(kind: str, name: str, result: Result) -> bool:
    if kind != PAIR:
        return name in _names(kind, result)
    recipe, _, engine = name.rpartition("@")
    return result.cell.recipe.name == recipe and _names(ENGINE, result) in ((), (engine,))


def _names(kind: str, result: Result) -> tuple[str, ...]:
    """A record's own of a kind; no engine ran an artifact."""
    cell = result.cell
    return {
        RECIPE: (cell.recipe.name,),
        ENGINE: (cell.engine.title,) if cell.measurement else (),
        DEVICE: (result.hardware.slug,),
        MODEL: (cell.model.label,),
    }[kind]


def _resolve(selector: str, catalogue: _Catalogue) -> tuple[str, str]:
    """Kind and name: as the selector says, in recipe:nf4, else of the only kind that has such a name."""
    prefix, _, rest = selector.partition(":")
    if prefix in AXES and rest:
        if not _exists(prefix, rest, catalogue):
            raise UserError(_unknown(prefix, rest, catalogue))
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
        near = difflib.get_close_matches(selector, [name for names in catalogue.names.values() for name in names])
        advice = f"did you mean {' or '.join(dict.fromkeys(near))}?" if near else "`python -m bench table` lists them"
        raise UserError(f"'{selector}' is not a recipe, engine, device or model of {catalogue.root}: {advice} ({hint})")
    return kinds[0], selector


def _exists(kind: str, name: str, catalogue: _Catalogue) -> bool:
    if kind == COMMIT:
        return git.commit(catalogue.root, name) is not None
    if kind == FOLDER:
        return Path(name).is_dir() and any(map(is_record, Path(name).rglob("r*.json")))
    if kind == PAIR:
        recipe, _, engine = name.rpartition("@")
        return recipe in catalogue.names[RECIPE] and engine in catalogue.names[ENGINE]
    return name in catalogue.names[kind]


def _unknown(kind: str, name: str, catalogue: _Catalogue) -> str:
    if kind == COMMIT:
        return f"unknown commit '{name}' in the repository of {catalogue.root}: `git log --oneline` lists them"
    if kind == FOLDER:
        return f"no records in the folder {name}"
    names = catalogue.names
    pairs = [f"{recipe}@{engine}" for recipe in names[RECIPE] for engine in names[ENGINE]]
    return plugins.unknown(kind, name, tuple(pairs if kind == PAIR else names[kind]))


def _a(kind: str) -> str:
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"
