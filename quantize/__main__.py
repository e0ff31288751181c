"""`python -m quantize MODEL --method gptq --bits 4 --group-size 128 -o DIR`.

One compression, without a suite.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Annotated

import typer

from bench.cli.exit_codes import guarded
from bench.cli.params import Quiet
from bench.contract import plugins, wire
from bench.contract.errors import CellError, UserError
from bench.contract.record import Artifact
from bench.contract.spec import Model, Recipe, Step
from bench.suite import flags

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
_EXTRA = {"allow_extra_args": True, "ignore_unknown_options": True}


@app.command(
    context_settings=_EXTRA,
    epilog="The method's own options follow, as in --bits 8; `python -m bench list methods` shows them.",
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
    """Compress MODEL into a folder in its method's format, and say what the written files hold."""
    from bench.machine import hardware as machine
    from bench.models import resolve
    from bench.progress.progress import Progress
    from bench.run import artifacts

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists and is not empty; name another folder")
    wanted = _recipe(method, recipe, context.args)
    with Progress(quiet=quiet) as progress:
        hardware = machine.detect(device)
        resolved = resolve.resolve(Model(model, revision or None), fetch=True, report=progress.doing)
        steps = artifacts.steps_for(wanted, hardware, resolved.format)
        reason, _ = artifacts.unsupported(steps, resolved, hardware)
        if reason:
            raise UserError(reason)
        try:
            made = artifacts.make(steps, resolved, hardware, progress.doing)
        except CellError as failure:
            raise UserError(str(failure)) from None
        _copy(made, out)
    for line in summary(made.artifact):
        typer.echo(line)
    typer.echo(f"written to     {out}")


def summary(artifact: Artifact) -> list[str]:
    """What the files hold, a fact a line."""
    held = artifact.audit
    peak = f", peak memory {artifact.make_peak_bytes / 2**20:,.0f} MiB" if artifact.make_peak_bytes else ""
    return [
        f"format         {held.format}, {held.total_bytes / 2**20:.2f} MiB",
        f"bits/weight    {held.bits_per_weight:.3f} over {held.linear_parameters:,} linear parameters",
        f"quantized      {held.quantized_fraction:.1%} of them",
        *([f"zero           {held.zero_fraction:.1%} of them"] if (held.zero_fraction or 0) > 1e-3 else []),
        f"made in        {artifact.make_s:.1f} s{peak}",
        *(f"note           {note}" for note in held.notes),
    ]


def _recipe(method: str, recipe: str, extra: list[str]) -> Recipe:
    from bench.suite import config

    if bool(method) == bool(recipe):
        raise UserError("name either --method or --recipe; `python -m bench list methods` and `list recipes` show them")
    given = flags.options(extra)
    if recipe:
        if given:
            raise UserError(f"--{next(iter(given))} cannot be combined with --recipe; use --method with its options")
        return config.recipe_named(recipe)
    return Recipe(method, (Step(method, config.options(plugins.METHODS, method, given, method)),))


def _copy(made: object, out: Path) -> None:
    """Copy the artifact out of the cache, beside and renamed, with a note of how it was made."""
    from bench.formats import gguf_reader
    from bench.run.artifacts import BuiltArtifact

    assert isinstance(made, BuiltArtifact)  # noqa: S101
    beside = out.with_name(f".{out.name}.{os.getpid()}.part")
    beside.parent.mkdir(parents=True, exist_ok=True)
    try:
        if made.folder.is_dir():
            shutil.copytree(made.folder, beside)
        else:
            beside.mkdir()
            for file in gguf_reader.files(made.folder):
                shutil.copyfile(file, beside / file.name)
        wire.write(beside / "llm-bench.json", wire.dumps(made.artifact, indent=1))
        if out.exists():
            out.rmdir()
        beside.rename(out)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


if __name__ == "__main__":
    guarded(app)
