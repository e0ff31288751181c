"""A model without tokenizer.json, for what reads text: the file is made once of the model's older tokenizer files.

The model's folder stays as it is; a folder of links in the cache stands for it, with tokenizer.json beside its files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench import formats
from bench.contract import plugins, wire
from bench.contract.errors import CellError, UserError
from bench.contract.job import Job, Report
from bench.contract.spec import Step, Suite
from bench.contract.workload import Trace
from bench.envs import environment
from bench.formats import folder as model_folder
from bench.formats import tokenizer_files
from bench.models import standard, vocabulary
from bench.models.resolve import Resolved
from bench.process import cache, supervisor

_VERSION = 1  # of what tokenizer_conversion makes of the same files
_TIMEOUT_S = 1800.0
_ABOUT = "about.json"
_SETTINGS = (model_folder.CONFIG, tokenizer_files.CONFIG, "special_tokens_map.json", "added_tokens.json")


@dataclass(frozen=True)
class Need:
    """`text`: something cannot go without the model's tokenizer. `uses`: something is better with it."""

    text: bool
    uses: bool


def of_suite(suite: Suite) -> Need:
    """A task, a method that reads text, or a server that loads the model; an endpoint elsewhere may have its own."""
    online = any(load.online for load in suite.workloads)
    texts = any(not isinstance(load, Trace) and load.prompts for load in suite.workloads)
    loads = any(plugins.load(plugins.ENGINES, engine.name).ENV != "core" for engine in suite.engines)
    reads = any(reads_text(recipe.steps) for recipe in suite.recipes)
    reads = bool(suite.tasks) or reads
    return Need(reads or ((online or texts) and loads), reads or online or texts)


def reads_text(steps: Sequence[Step]) -> bool:
    return any(method.reads_text(options) for method, options in map(plugins.method_of, steps))


def with_tokenizer(resolved: Resolved, need: Need, *, fetch: bool, report: Report = lambda _: None) -> Resolved:
    """The model with a tokenizer.json where something reads text: made now with `fetch`, else as `preparation` says.

    UserError where none can be made and text is read. Its digest is part of the model's identity.
    """
    folder = resolved.folder
    if not need.uses or folder is None or resolved.dummy or formats.tokenizer_env(resolved.format):
        return resolved
    if (folder / tokenizer_files.FAST).is_file():
        return resolved
    if reason := tokenizer_files.unusable(folder) or _without_packages(folder):
        if need.text:
            raise UserError(reason)
        return resolved
    digest = _digest(folder)
    resolved = replace(resolved, identity=f"{resolved.identity}+{digest}")
    converted = _conversion(folder, digest, report) if fetch else cache.find("tokenizers", digest, _ABOUT)
    if converted is None:
        return replace(resolved, preparation=_preparation(folder))
    files = {file.name: file for file in converted.iterdir() if file.name != _ABOUT}
    completed = standard.with_files(folder, files)
    vocabulary.require_rows(completed)
    return replace(resolved, folder=completed)


def folder_with_tokenizer(resolved: Resolved, *, make: bool, report: Report = lambda _: None) -> Path | None:
    """The folder with the model's tokenizer.json: its own, or one extracted from its single file, now with `make`.

    None where there is none; CellError where it cannot be extracted.
    """
    if resolved.folder is None or resolved.dummy:
        return None
    if (resolved.folder / tokenizer_files.FAST).is_file():
        return resolved.folder
    if not (name := formats.tokenizer_env(resolved.format)):
        return None

    def fill(part: Path) -> Mapping[str, str]:
        env = environment.ensure(name, report)
        report(f"{tokenizer_files.FAST}: from {resolved.local_folder.name}")
        job = Job(kind="tokenizer", plugin="", folder=str(resolved.folder), device="cpu", options={}, out=str(part))
        supervisor.succeeded(supervisor.run(job, env, timeout_s=_TIMEOUT_S))
        return {}

    digest = wire.digest(["tokenizer", resolved.identity, environment.identity(name)])
    return cache.ensure("tokenizers", digest, _ABOUT, fill) if make else cache.find("tokenizers", digest, _ABOUT)


def _conversion(folder: Path, digest: str, report: Report) -> Path:
    def fill(part: Path) -> Mapping[str, str]:
        env = environment.ensure(tokenizer_files.ENV, report)
        report(f"{tokenizer_files.FAST}: from {_files(folder)}")
        job = Job(kind="tokenizer", plugin="", folder=str(folder), device="cpu", options={}, out=str(part))
        supervisor.succeeded(supervisor.run(job, env, timeout_s=_TIMEOUT_S))
        return {"of": _files(folder)}

    try:
        return cache.ensure("tokenizers", digest, _ABOUT, fill)
    except CellError as error:
        raise UserError(str(error)) from None


def _digest(folder: Path) -> str:
    """Of the files that the conversion reads, and of what converts them."""
    form = tokenizer_files.form(folder)
    names = sorted({*_SETTINGS, *(form.files if form else ())})
    contents = [[name, wire.sha256(folder / name)] for name in names if (folder / name).is_file()]
    return wire.digest(["tokenizer", contents, environment.identity(tokenizer_files.ENV), _VERSION])


def _without_packages(folder: Path) -> str:
    form = tokenizer_files.form(folder)
    missing = environment.lacks(tokenizer_files.ENV, form.packages if form else ())
    if not missing:
        return ""
    return (
        f"{folder.name} has no {tokenizer_files.FAST}, and environment {tokenizer_files.ENV}, which makes it of "
        f"{_files(folder)}, lacks {' and '.join(missing)}: install it there, or put the model's {tokenizer_files.FAST} "
        "into the folder"
    )


def _preparation(folder: Path) -> str:
    env = tokenizer_files.ENV
    first = "" if environment.find(env) else f" (built first, or by: python -m bench envs build {env})"
    return (
        f"{folder.name} has no {tokenizer_files.FAST}: a run makes it of {_files(folder)} in environment {env}{first}"
    )


def _files(folder: Path) -> str:
    form = tokenizer_files.form(folder)
    return " and ".join(form.files) if form else "its files"
