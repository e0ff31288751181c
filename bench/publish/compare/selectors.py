"""What the two words of a comparison stand for: recipes, engines, devices, models, commits or folders."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from bench.contract import plugins
from bench.contract.errors import UserError
from bench.contract.record import Result
from bench.publish.compare import git
from bench.store import Store, is_record

RECIPE, ENGINE, DEVICE, MODEL, PAIR = "recipe", "engine", "device", "model", "recipe@engine"
COMMIT, FOLDER = "commit", "folder"
KINDS = (RECIPE, ENGINE, DEVICE, MODEL, PAIR, COMMIT, FOLDER)
# What each kind leaves out when cells are matched: the field that the two sides differ in by their nature.
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
class Side:
    """One of the two: its word and kind, how it is called in a heading, and its records.

    `problems` has a sentence for each file that could not be read.
    """

    word: str
    kind: str
    name: str
    records: tuple[Result, ...]
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Narrow:
    """Globs that leave cells out; empty ones do not. `only` is that of a run: title, recipe or workload."""

    suites: tuple[str, ...] = ()
    device: str = ""
    only: str = ""
    engine: str = ""
    recipe: str = ""

    def keeps(self, result: Result) -> bool:
        cell = result.cell
        whole = cell.workload is not None or cell.task is not None  # an artifact has no engine of its own
        asked = ((self.device, result.hardware.slug), (self.recipe, cell.recipe.name))
        named = (cell.title, cell.recipe.name, cell.what)
        return (
            (not self.suites or any(fnmatchcase(result.suite, suite) for suite in self.suites))
            and all(not glob or fnmatchcase(word, glob) for glob, word in asked)
            and (not self.engine or not whole or fnmatchcase(cell.engine.title, self.engine))
            and (not self.only or any(fnmatchcase(word, self.only) for word in named))
        )


def sides(first: str, second: str, results: Path, narrow: Narrow) -> tuple[Side, Side]:
    """Both sides, of one kind; a commit and a folder are of one, records of other days.

    UserError for a word that is none or several kinds of thing, and for two kinds.
    """
    store = Store(results)
    known, problems = list(store.all()), tuple(store.problems)
    kinds = [_kind(word, results, known) for word in (first, second)]
    words = [_bare(word) for word in (first, second)]
    if AXES[kinds[0]] != AXES[kinds[1]]:
        told = " and ".join(f"{w} is {_a(k)}" for w, k in zip(words, kinds, strict=True))
        pair = RECIPE in kinds and PAIR in kinds
        hint = f"; write {words[kinds.index(RECIPE)]}@ENGINE" if pair else ""
        raise UserError(f"{told}: two of one kind are compared{hint}")
    if kinds[0] == kinds[1] and words[0] == words[1]:
        raise UserError(f"both sides are the {kinds[0]} {words[0]}: name another to compare it with")
    found = [_side(w, k, results, known, problems) for w, k in zip(words, kinds, strict=True)]
    return _narrowed(found[0], narrow), _narrowed(found[1], narrow)


def _narrowed(side: Side, narrow: Narrow) -> Side:
    kept = tuple(result for result in side.records if narrow.keeps(result))
    return Side(side.word, side.kind, side.name, kept, side.problems)


def _side(word: str, kind: str, results: Path, known: Sequence[Result], problems: tuple[str, ...]) -> Side:
    if kind == COMMIT:
        full = git.commit(results, word) or ""
        short = full[:9]
        found, faults = git.records(results, full)
        name = word if full.startswith(word) else f"{word} ({short})"
        return Side(word, kind, f"commit {name}", tuple(found), tuple(faults))
    if kind == FOLDER:
        store = Store(Path(word))
        return Side(word, kind, f"folder {word}", tuple(store.all()), tuple(store.problems))
    return Side(word, kind, f"{kind} {word}", tuple(r for r in known if _is(kind, word, r)), problems)


def _is(kind: str, word: str, result: Result) -> bool:
    cell = result.cell
    if kind == PAIR:
        recipe, _, engine = word.rpartition("@")
        whole = cell.workload is not None or cell.task is not None
        return cell.recipe.name == recipe and (not whole or cell.engine.title == engine)
    return word in _words(kind, result)


def _words(kind: str, result: Result) -> tuple[str, ...]:
    """What a record calls its own of a kind; the engine of an artifact is none that ran."""
    cell = result.cell
    ran = cell.workload is not None or cell.task is not None
    return {
        RECIPE: (cell.recipe.name,),
        ENGINE: (cell.engine.title,) if ran else (),
        DEVICE: (result.hardware.slug,),
        MODEL: (cell.model.label,),
    }[kind]


def _kind(word: str, results: Path, known: Sequence[Result]) -> str:
    """The kind that a word says it is, as recipe:nf4, or the only one that it can be."""
    forced, bare = word.partition(":")[0], _bare(word)
    there = {kind: _names(kind, known) for kind in (RECIPE, ENGINE, DEVICE, MODEL)}
    if bare != word:
        if not _may_be(forced, bare, results, there):
            raise UserError(_no(forced, bare, results, there))
        return forced
    found, why = [], "nor is it a commit there, or a folder with records"
    for kind in KINDS:
        try:
            found += [kind] if _may_be(kind, word, results, there) else []
        except UserError as error:  # no git, or no repository: no matter, where the word is something else
            why = str(error)
    if not found and not known:
        raise UserError(f"there are no records in {results} to find '{word}' in; {why}")
    if not found:
        named = [name for names in there.values() for name in names]
        near = " or ".join(dict.fromkeys(difflib.get_close_matches(word, named)))
        hint = f"did you mean {near}?" if near else "`python -m bench table` shows what there is"
        raise UserError(f"'{word}' is no recipe, engine, device or model of {results}: {hint} ({why})")
    if len(found) > 1:
        told = " or ".join(f"{kind}:{word}" for kind in found)
        raise UserError(f"{word} is {' and '.join(map(_a, found))}: write {told}")
    return found[0]


def _may_be(kind: str, word: str, results: Path, there: dict[str, tuple[str, ...]]) -> bool:
    if kind == FOLDER:
        return Path(word).is_dir() and any(map(is_record, Path(word).rglob("r*.json")))
    if kind == PAIR:
        recipe, _, engine = word.rpartition("@")
        return recipe in there[RECIPE] and engine in there[ENGINE]
    if kind != COMMIT:
        return word in there[kind]
    return git.commit(results, word) is not None


def _no(kind: str, word: str, results: Path, there: dict[str, tuple[str, ...]]) -> str:
    if kind == COMMIT:
        return f"'{word}' is no commit of the repository of {results}; `git log --oneline` lists them"
    if kind == FOLDER:
        return f"there are no records in a folder {word}"
    if kind == PAIR:
        return plugins.unknown(PAIR, word, tuple(f"{r}@{e}" for r in there[RECIPE] for e in there[ENGINE]))
    return plugins.unknown(kind, word, there[kind])


def _names(kind: str, known: Iterable[Result]) -> tuple[str, ...]:
    return tuple(sorted({word for result in known for word in _words(kind, result)}))


def _bare(word: str) -> str:
    kind, _, rest = word.partition(":")
    return rest if kind in KINDS and rest else word


def _a(kind: str) -> str:
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"
