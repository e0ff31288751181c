"""Data sets from a folder on this machine in place of the Hub's: what a suite's key `data` does.

The folder has wikitext-2/wiki.test.raw, wikitext-2/wiki.valid.raw (or wiki.train.raw, which is then what calibrates
and trains, as the Hub's) and tasks/NAME.jsonl or .jsonl.gz. Titles stay as they are; a record has the sha256 of its
text, and of its requests.
"""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

from bench import paths
from bench.contract import plugins, wire
from bench.contract.errors import UserError
from bench.contract.spec import Options, Recipe, Suite, Task

_HUB = "wikitext2"
# Files of WikiText-2, the first there is: weights are fitted to another split than is scored.
_SCORED, _FITTED = ("wiki.test.raw",), ("wiki.train.raw", "wiki.valid.raw")


def settled(suite: Suite) -> Suite:
    """The suite with files of its folder `data` named in its recipes and tasks; UserError where one is missing."""
    if not suite.data:
        return suite
    folder = Path(suite.data).expanduser()
    if not folder.is_dir():
        raise UserError(f"data: {folder} is no folder; a relative path is one of the folder you run in")
    try:
        recipes = tuple(_recipe(recipe, folder) for recipe in suite.recipes)
        return dataclasses.replace(suite, recipes=recipes, tasks=tuple(_task(task, folder) for task in suite.tasks))
    except UserError as error:
        raise UserError(f"data: {error}") from None


def wikitext2(raw: str) -> str:
    """The text of `corpus: wikitext2` from the file of one of its splits: each line a row of the Hub's data set.

    A row is a line with its end, and nothing where the line is blank; eval.corpora joins rows by blank lines.
    """
    lines = raw.removesuffix("\n").split("\n")
    return "\n\n".join(f"{line}\n" if line.strip() else "" for line in lines)


def _recipe(recipe: Recipe, folder: Path) -> Recipe:
    steps = [
        dataclasses.replace(step, options=_corpora(step.options, ("calibration", "corpus"), _FITTED, folder))
        for step in recipe.steps
    ]
    return dataclasses.replace(recipe, steps=tuple(steps))


def _task(task: Task, folder: Path) -> Task:
    module = plugins.load(plugins.TASKS, task.kind)
    options = module.Options(**_corpora(task.options, ("corpus",), _SCORED, folder))
    return dataclasses.replace(task, options=dataclasses.asdict(module.local(options, folder)))


def _corpora(options: Options, names: tuple[str, ...], files: tuple[str, ...], folder: Path) -> Options:
    hub = [name for name in names if options.get(name) == _HUB]
    return {**options, **{name: f"path:{_text(folder / 'wikitext-2', files)}" for name in hub}}


def _text(folder: Path, names: tuple[str, ...]) -> Path:
    """A file of the cache with the text that the first of the folder's files of these names holds."""
    file = next((folder / name for name in names if (folder / name).is_file()), None)
    if file is None:
        raise UserError(f"{_HUB} is read from {folder / names[-1]}, which does not exist")
    try:
        text = wikitext2(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read as UTF-8 text: {error}") from None
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    cached = paths.cache_folder("texts") / f"{_HUB}-{file.stem.removeprefix('wiki.')}-{sha256[:16]}.txt"
    if not cached.is_file():
        wire.write(cached, text)
    return cached
