"""Recipes to artifacts: each step is taken once, in its method's environment, and found by its digest."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import platform
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from bench import paths
from bench.contract import hooks, plugins, wire
from bench.contract.errors import UserError
from bench.contract.job import Job
from bench.contract.record import Artifact, Audit, Hardware, Source
from bench.contract.spec import Options, Recipe, Step
from bench.envs import environment
from bench.formats import audit
from bench.models.resolve import Resolved
from bench.process import supervisor
from bench.suite import config

Report = Callable[[str], None]

_BEFORE_MOST = 8  # steps before steps: more than any method needs, and soon found


class StepFailedError(Exception):
    """A step was tried and did not produce an artifact; the text is the reason a record gives."""


@dataclass(frozen=True)
class Made:
    """An artifact and where its files are on this machine: a folder, or the .gguf file that was named."""

    folder: Path
    artifact: Artifact


def steps_for(recipe: Recipe, hardware: Hardware, source_format: str) -> tuple[Step, ...]:
    """The recipe's steps, each after those its method wants taken first: what is cached, planned, recorded.

    `dtype: auto` is settled to what this hardware computes in, `provider: auto` to the device's.
    """
    taken: list[Step] = []
    for step in recipe.steps:
        _expand(step, hardware, source_format, taken, ())
    return tuple(taken)


def _expand(step: Step, hardware: Hardware, source_format: str, taken: list[Step], wanted_by: tuple[str, ...]) -> None:
    """Add to `taken` the steps before this one, and theirs, and then this one."""
    if len(wanted_by) > _BEFORE_MOST:
        raise UserError(
            f"method {step.method} cannot be planned: it wants steps first that want steps first, without "
            f"end ({', '.join(dict.fromkeys(wanted_by))}); that is a mistake in the method's `before`"
        )
    settled = {"dtype": hardware.compute_dtype, "provider": hardware.device.partition(":")[0]}
    auto = {key: value for key, value in settled.items() if step.options.get(key) == "auto"}
    step = Step(step.method, {**step.options, **auto})
    method = plugins.load(plugins.METHODS, step.method)
    given = plugins.load(plugins.METHODS, taken[-1].method).WRITES if taken else source_format
    for first in method.prerequisites(method.Options(**step.options), given):
        whole = config.options(plugins.METHODS, first.method, first.options, f"{step.method}: before")
        _expand(Step(first.method, whole), hardware, source_format, taken, (*wanted_by, step.method))
    taken.append(step)


def digests(identity: str, steps: tuple[Step, ...]) -> tuple[str, ...]:
    """One digest per step; the last one is the artifact's. Without steps, the model's own."""
    made = [wire.digest(identity)]
    for step in steps:
        method = plugins.load(plugins.METHODS, step.method)
        options, env = file_options(_digest_options(step)), environment.identity(plugins.step_env(step))
        key = [made[-1], step.method, options, method.VERSION, env]
        made.append(wire.digest(key))
    return tuple(made[1:]) or (made[0],)


def _digest_options(step: Step) -> Options:
    """Options but those of OPTIONS_SINCE at their defaults: artifacts of before have those, and keep their digest."""
    method, _ = plugins.method_of(step)
    default = dataclasses.asdict(method.Options())
    return {k: v for k, v in step.options.items() if k not in method.OPTIONS_SINCE or v != default[k]}


def file_options(options: object) -> dict[str, object]:
    """Options for a digest: a text counts by its content, not by its name."""
    plain = wire.plain(options)
    return {k: _content(v) if isinstance(v, str) else v for k, v in plain.items()}


def unsupported(steps: tuple[Step, ...], resolved: Resolved, hardware: Hardware) -> tuple[str, str]:
    """(reason or nothing, format the recipe ends in), from what is known before anything is run."""
    ends = plugins.load(plugins.METHODS, steps[-1].method).WRITES if steps else resolved.format
    known = resolved.source
    for before, step in enumerate(steps):
        method = plugins.load(plugins.METHODS, step.method)
        if known.format not in method.READS:
            reads = ", ".join(sorted(method.READS))
            remedy = "put it before the step that wrote that" if before else "start from weights in that form"
            return f"{step.method} reads {reads}, and is given {known.format}: {remedy}", ends
        options = method.Options(**step.options)
        if reason := method.unsupported(options, known, hardware) or environment.too_old(
            plugins.step_env(step), hardware
        ):
            return reason, ends
        known = method.output_source(options, known)
        known = Source(method.WRITES, known.linears, known.config)
    return "", ends


def find(digest: str) -> Made | None:
    """The artifact with this digest if it is in the cache."""
    folder = _folder(digest)
    try:
        artifact = wire.build(Artifact, json.loads((folder / "artifact.json").read_text()))
    except (OSError, ValueError):
        return None
    return Made(folder / "model", artifact)


def make(
    steps: tuple[Step, ...], resolved: Resolved, hardware: Hardware, report: Report, *, timeout_s: float = 7200.0
) -> Made:
    """The artifact of these steps, each step taken only if its output is not in the cache."""
    if resolved.folder is None:
        raise UserError(f"the model {resolved.identity} is not on this machine; run without --dry-run to fetch it")
    reference = dict(audit.source(resolved.folder).linears)
    if not steps:
        facts = audit.audit(resolved.folder, reference or None)
        (digest,) = digests(resolved.identity, steps)
        return Made(resolved.folder, Artifact(digest, facts.format, resolved.identity, (), facts))
    made: Made | None = None
    for count, digest in enumerate(digests(resolved.identity, steps), start=1):
        _folder(digest).parent.mkdir(parents=True, exist_ok=True)
        with FileLock(_folder(digest).with_suffix(".lock")):
            found = find(digest)
            if found is None:
                report(f"{steps[count - 1].method}: making the artifact")
                found = _take(steps[:count], made, digest, resolved, reference, hardware, report, timeout_s)
        made = found
        if made.artifact.format == "hf":  # whose shapes may be others now
            reference = dict(audit.source(made.folder).linears)
    assert made is not None  # noqa: S101  (there is at least one step)
    return made


def _take(
    steps: tuple[Step, ...],
    before: Made | None,
    digest: str,
    resolved: Resolved,
    reference: dict[str, tuple[int, int]],
    hardware: Hardware,
    report: Report,
    timeout_s: float,
) -> Made:
    """Take the last of `steps` in its method's environment, audit what it wrote, and keep it.

    What a method leaves in its work folder outlives an interruption, and is gone with success.
    """
    step = steps[-1]
    method = plugins.load(plugins.METHODS, step.method)
    env = environment.ensure(plugins.step_env(step), report)
    folder = _folder(digest)
    shutil.rmtree(folder, ignore_errors=True)
    building = folder.with_suffix(".part")
    shutil.rmtree(building, ignore_errors=True)
    (building / "model").mkdir(parents=True)
    work = folder.with_suffix(".work")
    work.mkdir(exist_ok=True)
    try:
        job = Job(
            kind="compress",
            plugin=step.method,
            folder=str(before.folder if before else resolved.folder),
            answer="",
            device=hardware.device,
            options=absolute(step.options),
            out=str(building / "model"),
            teacher=str(resolved.folder),
            work=str(work),
        )
        told = supervisor.follow(work / "progress", lambda line: report(f"{step.method}: {line}"))
        outcome = supervisor.run(job, env, timeout_s=timeout_s, watching=told)
        if outcome.answer.error:
            raise StepFailedError(f"{step.method}: {outcome.answer.error}")
        found = _audited(building / "model", reference, method)
        artifact = Artifact(
            digest=digest,
            format=found.format,
            source=resolved.identity,
            steps=steps,
            audit=found,
            make_s=outcome.wall_s,
            make_total_s=outcome.wall_s + (before.artifact.make_total_s if before else 0.0),
            make_peak_bytes=int(outcome.seen.get("peak_rss_bytes", 0)),
            facts=outcome.answer.facts,
            environments={env.name: env.identity, **env.versions},
        )
        wire.write(building / "artifact.json", wire.dumps(artifact, indent=1))
        building.rename(folder)
        shutil.rmtree(work, ignore_errors=True)
    finally:
        shutil.rmtree(building, ignore_errors=True)
        with contextlib.suppress(OSError):  # it stays where something was left in it
            work.rmdir()
    return Made(folder / "model", artifact)


def _audited(folder: Path, reference: dict[str, tuple[int, int]], method: Any) -> Audit:
    """A method that reshapes is read by the shapes it wrote."""
    try:
        known = None if hooks.plugin_has(method, "output_source") else reference or None
        found = audit.audit(folder, known, zeros=True)
    except UserError as error:
        raise StepFailedError(f"what was written cannot be read back: {error}") from None
    if found.format != method.WRITES:
        raise StepFailedError(f"promised {method.WRITES} and wrote {found.format}")
    return found


def absolute(options: object) -> dict[str, str | int | float | bool | None]:
    """Options as a worker needs them.

    Its working folder is not the caller's, so `path:` values become absolute.
    """
    return {
        k: f"path:{Path(v.removeprefix('path:')).expanduser().resolve()}"
        if isinstance(v, str) and v.startswith("path:")
        else v
        for k, v in wire.plain(options).items()
    }


def _content(value: str) -> str:
    if value == "stdlib":  # the corpus that is another one in another Python
        return f"stdlib:{platform.python_version()}"
    if not value.startswith("path:"):
        return value
    file = Path(value.removeprefix("path:")).expanduser()
    if file.is_dir():
        inside = sorted(f for f in file.rglob("*") if f.is_file() and "__pycache__" not in f.parts)
        return f"sha256:{wire.digest([[str(f.relative_to(file)), _sha256(f)] for f in inside])}"
    if not file.is_file():
        raise UserError(f"{value}: no such file or folder; a path is relative to the folder you run in")
    return f"sha256:{_sha256(file)}"


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _folder(digest: str) -> Path:
    return paths.cache() / "artifacts" / digest
