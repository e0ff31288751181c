"""The command `python -m quantize`: one compression, without a suite."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer
from filelock import FileLock

from bench.cli.params import Quiet, put
from bench.contract import plugins, wire
from bench.contract.errors import CellError, UserError
from bench.contract.record import Artifact
from bench.contract.spec import Model, Recipe, Step
from bench.suite import flags

_SINK_RATIO = 10  # of relative squared errors, above which a model relies on its first token and lost it
_SINK = "note           the first token lost far more: if it is an attention sink, first_token_weight: 100 helps"
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
_EXTRA = {"allow_extra_args": True, "ignore_unknown_options": True}


@app.command(
    context_settings=_EXTRA,
    epilog="The method's own options follow, as in --bits 8; `python -m bench list methods` shows them. "
    "What each layer's quantization costs: python -m quantize sensitivity MODEL --method …",
)
def quantize(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="A local folder, a .gguf file or a Hub id.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The folder to write; must not exist or be empty.")],
    method: Annotated[str, typer.Option(help=f"One of: {', '.join(plugins.names(plugins.METHODS))}.")] = "",
    recipe: Annotated[str, typer.Option(help="A named recipe instead of a method, for example gptq-w4g128.")] = "",
    device: Annotated[str, typer.Option(help="cpu, cuda:N or auto.")] = "auto",
    revision: Annotated[str, typer.Option(help="Branch, tag or commit of a Hub model.")] = "",
    quiet: Quiet = False,
) -> None:
    """Compress MODEL into a folder in its method's format, and print what the files contain."""
    from bench.machine import hardware as machine
    from bench.models import resolve
    from bench.progress.progress import Progress
    from bench.run import artifacts, tokenizer

    _require_room(out)
    chosen = chosen_recipe(method, recipe, context.args)
    with Progress(quiet=quiet) as progress:
        hardware = machine.detect(device)
        resolved = resolve.resolve(Model(model, revision or None), fetch=True, report=progress.doing)
        need = tokenizer.Need(text=tokenizer.reads_text(chosen.steps), uses=True)
        resolved = tokenizer.with_tokenizer(resolved, need, fetch=True, report=progress.doing)
        steps = artifacts.steps_for(chosen, hardware, resolved.format)
        reason, _ = artifacts.unsupported(steps, resolved, hardware)
        if reason:
            raise UserError(reason)
        try:
            built = artifacts.make(steps, resolved, hardware, progress.doing)
        except CellError as failure:
            raise UserError(str(failure)) from None
        _copy(built.folder, built.artifact, out)
    for line in _summary(built.artifact):
        put(line)
    put(f"written to     {out}")


def _summary(artifact: Artifact) -> list[str]:
    """What the files contain, one fact a line."""
    audit = artifact.audit
    peak = f", peak memory {artifact.make_peak_bytes / 2**20:,.0f} MiB" if artifact.make_peak_bytes else ""
    return [
        f"format         {audit.format}, {audit.total_bytes / 2**20:.2f} MiB",
        f"bits/weight    {audit.bits_per_weight:.3f} over {audit.linear_parameters:,} linear parameters",
        f"quantized      {audit.quantized_fraction:.1%} of them",
        *([f"zero           {audit.zero_fraction:.1%} of them"] if (audit.zero_fraction or 0) > 1e-3 else []),
        *_mixed_types(artifact),
        *_output_errors(artifact),
        f"made in        {artifact.make_s:.1f} s{peak}",
        *(f"note           {note}" for note in audit.notes),
    ]


def _mixed_types(artifact: Artifact) -> list[str]:
    """How many layers have which type, where these were chosen by layer, and what that is predicted to cost."""
    facts = artifact.facts
    if "predicted_kl" not in facts:
        return []
    types = ", ".join(f"{kind} x{count}" for kind, count in facts["layers_by_type"].items())
    interval = f"{facts['predicted_kl_low']:.2g} to {facts['predicted_kl_high']:.2g}"
    return [f"layers         {types}", f"predicted KL   {facts['predicted_kl']:.2g} nats a token ({interval})"]


def _output_errors(artifact: Artifact) -> list[str]:
    """How far the layers' outputs moved, and what to do where the first token's moved much further."""
    first, others = (artifact.facts.get(f"output_error_{which}") for which in ("first_token", "other_tokens"))
    if not isinstance(first, float) or not isinstance(others, float):
        return []
    line = f"output error   {first:.3g} at the first token of a window, {others:.3g} at others"
    unweighted = artifact.facts.get("first_token_weight", 1) == 1
    return [line, *([_SINK] if unweighted and first > _SINK_RATIO * others else [])]


def chosen_recipe(method: str, recipe: str, extra: list[str]) -> Recipe:
    """The one of this name, or one step of this method with its options on the command line; UserError for both."""
    from bench.suite import config

    if bool(method) == bool(recipe):
        raise UserError("give either --method or --recipe: `python -m bench list methods` and `list recipes` show them")
    options = flags.options(extra)
    if recipe:
        if options:
            raise UserError(f"--{next(iter(options))} cannot be combined with --recipe; use --method with its options")
        return config.recipe_named(recipe)
    return Recipe(method, (Step(method, config.options(plugins.METHODS, method, options, method)),))


def _copy(source: Path, artifact: Artifact, out: Path) -> None:
    """Copy the artifact's folder or .gguf file out of the cache, with its record; `out` appears complete.

    Copies to one place wait for each other, and what one that was killed left is removed.
    """
    part, lock = out.with_name(f".{out.name}.part"), out.with_name(f".{out.name}.lock")
    part.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
        try:
            _require_room(out)
            shutil.rmtree(part, ignore_errors=True)
            _fill(part, source, artifact)
            if out.exists():
                out.rmdir()
            part.rename(out)
        finally:
            shutil.rmtree(part, ignore_errors=True)
            lock.unlink(missing_ok=True)


def _require_room(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists and is not empty: choose another folder")


def _fill(part: Path, source: Path, artifact: Artifact) -> None:
    from bench import formats

    if source.is_dir():
        shutil.copytree(source, part)
    else:
        part.mkdir()
        for file in formats.files(source):
            shutil.copyfile(file, part / file.name)
    wire.write(part / "llm-bench.json", wire.dumps(artifact, indent=1))
