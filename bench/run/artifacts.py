"""Recipes to artifacts: each step runs once, in its method's environment, and is cached by its digest."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import platform
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from bench import formats, paths
from bench.contract import hooks, plugins, wire
from bench.contract.errors import CellError, UserError
from bench.contract.job import Job, Report
from bench.contract.record import Artifact, Audit, Hardware, Source
from bench.contract.spec import Options, Recipe, Step
from bench.envs import environment
from bench.measure.memory import host_peak_bytes
from bench.models.resolve import Resolved
from bench.process import cache, supervisor
from bench.suite import config

_TIMEOUT_S = 7200.0  # of one step
_MOST_NESTED = 8  # prerequisites of prerequisites: more than any method needs, and soon reached


@dataclass(frozen=True)
class BuiltArtifact:
    """An artifact and where its files are on this machine: a folder, or the .gguf file that was named."""

    folder: Path
    artifact: Artifact


def steps_for(recipe: Recipe, hardware: Hardware, source_format: str) -> tuple[Step, ...]:
    """The recipe's steps, each after its method's prerequisites: what is cached, planned, recorded.

    `dtype: auto` is settled to what this hardware computes in, `provider: auto` to the device's.
    """
    steps: list[Step] = _opening(recipe, source_format)
    for step in recipe.steps:
        _expand(step, hardware, source_format, steps, ())
    return tuple(steps)


def _opening(recipe: Recipe, source_format: str) -> list[Step]:
    """The step that makes of the model's own format one that the recipe's first step reads, where it needs any."""
    reads = plugins.load(plugins.METHODS, recipe.steps[0].method).READS if recipe.steps else frozenset({source_format})
    if source_format in reads:
        return []
    for name in plugins.names(plugins.METHODS):
        method = plugins.load(plugins.METHODS, name)
        if method.OPENS_SOURCES and source_format in method.READS and method.WRITES in reads:
            return [Step(name, config.options(plugins.METHODS, name, {}, name))]
    return []


def _expand(step: Step, hardware: Hardware, source_format: str, steps: list[Step], parents: tuple[str, ...]) -> None:
    """Append the step's prerequisites, theirs first, and then the step itself."""
    if len(parents) > _MOST_NESTED:
        raise UserError(
            f"method {step.method} cannot be planned: its prerequisites have prerequisites without "
            f"end ({', '.join(dict.fromkeys(parents))}); fix the method's `prerequisites`"
        )
    settled = {"dtype": hardware.compute_dtype, "provider": hardware.device.partition(":")[0]}
    auto = {key: value for key, value in settled.items() if step.options.get(key) == "auto"}
    step = Step(step.method, {**step.options, **auto})
    method = plugins.load(plugins.METHODS, step.method)
    input_format = plugins.load(plugins.METHODS, steps[-1].method).WRITES if steps else source_format
    for first in method.prerequisites(method.Options(**step.options), input_format):
        options = config.options(plugins.METHODS, first.method, first.options, f"{step.method}: prerequisites")
        _expand(Step(first.method, options), hardware, source_format, steps, (*parents, step.method))
    steps.append(step)


def digests(identity: str, steps: tuple[Step, ...]) -> tuple[str, ...]:
    """One digest per step; the last one is the artifact's. Without steps, the model's own."""
    chain = [wire.digest(identity)]
    for step in steps:
        method = plugins.load(plugins.METHODS, step.method)
        options, env = digest_options(step.options, method), environment.identity(plugins.step_env(step))
        chain.append(wire.digest([chain[-1], step.method, options, method.VERSION, env]))
    return tuple(chain[1:]) or (chain[0],)


def digest_options(options: Options, plugin: hooks.Method | hooks.Engine | hooks.Task) -> dict[str, object]:
    """Options for a digest, but those of OPTIONS_SINCE at their defaults: what was made before has those."""
    default = dataclasses.asdict(plugin.Options()) if plugin.OPTIONS_SINCE else {}
    return file_options({k: v for k, v in options.items() if k not in plugin.OPTIONS_SINCE or v != default[k]})


def file_options(options: object) -> dict[str, object]:
    """Options for a digest: a text counts by its content, not by its name."""
    plain = wire.plain(options)
    return {k: _content(v) if isinstance(v, str) else v for k, v in plain.items()}


def unsupported(steps: tuple[Step, ...], resolved: Resolved, hardware: Hardware) -> tuple[str, str]:
    """(reason or nothing, format the recipe ends in), from what is known before anything is run."""
    final_format = plugins.load(plugins.METHODS, steps[-1].method).WRITES if steps else resolved.format
    source = resolved.source
    for index, step in enumerate(steps):
        method, options = plugins.method_of(step)
        if source.format not in method.READS:
            reads = ", ".join(sorted(method.READS))
            remedy = "put it before the step that wrote that" if index else "start from weights in that form"
            return f"{step.method} reads {reads}, and is given {source.format}: {remedy}", final_format
        if reason := method.unsupported(options, source, hardware) or environment.too_old(
            plugins.step_env(step), hardware
        ):
            return reason, final_format
        source = method.output_source(options, source)
        source = Source(method.WRITES, source.linears, source.config)
    return "", final_format


def find(digest: str) -> BuiltArtifact | None:
    """The artifact with this digest if it is in the cache."""
    folder = _folder(digest)
    try:
        artifact = wire.build(Artifact, json.loads((folder / "artifact.json").read_text()))
    except (OSError, ValueError):
        return None
    return BuiltArtifact(folder / "model", artifact)


def make(
    steps: tuple[Step, ...],
    resolved: Resolved,
    hardware: Hardware,
    report: Report,
    is_alone: Callable[[], bool] = lambda: True,
    *,
    shapes: Mapping[str, tuple[int, int]] | None = None,
) -> BuiltArtifact:
    """The artifact of these steps, each run only if its output is not in the cache; CellError where one fails.

    `is_alone`: whether nothing else has run beside it until now. `shapes`: of the linear layers of a source that does
    not keep them.
    """
    chain = digests(resolved.identity, steps)[: len(steps)]
    if chain and (existing := find(chain[-1])) is not None:
        return existing
    source = resolved.local_folder
    linears = dict(formats.source(source).linears or shapes or {})
    original = formats.audit(source, linears or None)
    types = formats.stored_types(source) if original.quantized_fraction else {}
    built = BuiltArtifact(
        source, Artifact(wire.digest(resolved.identity), original.format, resolved.identity, (), original)
    )
    teacher = source
    for count, digest in enumerate(chain, start=1):
        build = partial(
            _take, steps[:count], built, digest, resolved.identity, teacher, linears, types, hardware, report, is_alone
        )
        built = cache.build_once(_folder(digest), partial(find, digest), build, report)
        if plugins.load(plugins.METHODS, steps[count - 1].method).OPENS_SOURCES:
            teacher = built.folder  # the model in a form that a training step reads
        if formats.holds_floats(built.artifact.format):  # whose shapes may be others now
            linears = dict(formats.source(built.folder).linears)
    return built


def _take(
    steps: tuple[Step, ...],
    source: BuiltArtifact,
    digest: str,
    identity: str,
    teacher: Path,
    linears: dict[str, tuple[int, int]],
    source_types: Mapping[str, str],
    hardware: Hardware,
    report: Report,
    is_alone: Callable[[], bool],
    part: Path,
) -> None:
    """Run the last of `steps` and audit what it wrote into `part`; its work folder outlives an interruption."""
    step = steps[-1]
    report(f"{step.method}: making the artifact")
    method = plugins.load(plugins.METHODS, step.method)
    env = environment.ensure(plugins.step_env(step), report)
    out, work = part / "model", _folder(digest).with_suffix(".work")
    out.mkdir()
    work.mkdir(exist_ok=True)
    job = Job(
        kind="compress",
        plugin=step.method,
        folder=str(source.folder),
        device=hardware.device,
        options=absolute(step.options),
        out=str(out),
        teacher=str(teacher),
        work=str(work),
    )
    try:
        outcome = supervisor.run(job, env, timeout_s=_TIMEOUT_S, report=lambda line: report(f"{step.method}: {line}"))
        if outcome.answer.error:
            raise CellError(f"{step.method}: {outcome.answer.error}")
        report(f"{step.method}: reading back what was written")
        written, alone = _audited(out, linears, method), is_alone() and source.artifact.make_alone
        facts = {**outcome.answer.facts, **({} if alone else {"make_alone": False})}
        if source_types:
            facts |= _source_facts(source_types, formats.stored_types(out))
            written = replace(written, notes=(*written.notes, f"its source is quantized: {facts['source_type']}"))
        artifact = Artifact(
            digest=digest,
            format=written.format,
            source=identity,
            steps=steps,
            audit=written,
            make_s=outcome.wall_s,
            make_total_s=outcome.wall_s + source.artifact.make_total_s,
            make_peak_bytes=int(host_peak_bytes({**outcome.answer.facts, **outcome.observed})),
            facts=facts,
            environments={env.name: env.identity, **env.versions},
        )
        wire.write(part / "artifact.json", wire.dumps(artifact, indent=1))
        shutil.rmtree(work, ignore_errors=True)
    finally:
        with contextlib.suppress(OSError):  # it stays where something was left in it
            work.rmdir()


def _source_facts(source: Mapping[str, str], written: Mapping[str, str]) -> dict[str, Any]:
    """What most layers of a quantized source are stored in, and which share of them is stored so again.

    A layer that is stored in its source's type comes out as it was, or nearly.
    """
    same = [layer for layer, kind in written.items() if source.get(layer) == kind]
    return {
        "source_type": Counter(source.values()).most_common(1)[0][0],
        "source_grid_fraction": len(same) / len(source),
    }


def _audited(folder: Path, linears: dict[str, tuple[int, int]], method: hooks.Method) -> Audit:
    """A method that reshapes is read by the shapes it wrote."""
    shapes = None if hooks.plugin_has(method, "output_source") else linears or None
    try:
        written = formats.audit(folder, shapes, zeros=True)
    except UserError as error:
        raise CellError(f"what was written cannot be read back: {error}") from None
    if written.format != method.WRITES:
        raise CellError(f"promised {method.WRITES} and wrote {written.format}")
    return written


def absolute(options: object) -> dict[str, str | int | float | bool | None]:
    """Options for a worker: `path:` values become absolute, as its working folder is not the caller's."""
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
        files = sorted(f for f in file.rglob("*") if f.is_file() and "__pycache__" not in f.parts)
        return f"sha256:{wire.digest([[str(f.relative_to(file)), wire.sha256(f)] for f in files])}"
    if not file.is_file():
        raise UserError(f"{value}: no such file or folder; a path is relative to the folder you run in")
    return f"sha256:{wire.sha256(file)}"


def _folder(digest: str) -> Path:
    return paths.cache() / "artifacts" / digest
