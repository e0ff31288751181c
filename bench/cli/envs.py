"""This machine and its environments: doctor, envs list, envs build, envs lock, envs remove, envs prune."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from bench.cli.params import Json, On, Quiet, RayAddress, Tools, output, put, say
from bench.contract.errors import UserError

app = typer.Typer()
envs_app = typer.Typer(help="The environments that engines and methods run in.", no_args_is_help=True)
app.add_typer(envs_app, name="envs")


@app.command()
def doctor(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[ARCHITECTURE]...", help="With --architectures: only these.")
    ] = None,
    architectures: Annotated[
        bool,
        typer.Option(
            "--architectures", help="Try every method and engine on tiny models of architectures that people use."
        ),
    ] = False,
    only: Annotated[str, typer.Option(metavar="GLOB", help="With --architectures: only such recipes.")] = "",
    engine: Annotated[str, typer.Option(metavar="NAME", help="With --architectures: only this engine.")] = "",
    write: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With --architectures: write the table as a page, in Markdown.")
    ] = None,
    on: On = "",
    ray_address: RayAddress = "",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show this machine, its environments, what is missing; with --on ray each node of a cluster.

    With --architectures: which of them go through what.
    """
    from bench.run import doctor as health

    if ray_address and not on:
        raise UserError("--ray-address is for --on ray: add that, or leave it out")
    if on and architectures:
        raise UserError("--architectures tries this machine alone: leave --on ray out")
    if architectures:
        _architectures(names or [], only, engine, write, as_json=as_json, quiet=quiet)
        return
    for given, what in ((names, " ".join(names or [])), (only, "--only"), (engine, "--engine"), (write, "--write")):
        if given:
            raise UserError(f"{what} is for architectures: add --architectures, or leave it out")
    if on:
        _nodes(ray_address, as_json=as_json)
    else:
        output(health.as_json() if as_json else health.lines())


def _nodes(address: str, *, as_json: bool) -> None:
    """Show the nodes of a cluster."""
    from bench.fleet import cluster, doctor

    with cluster.connected(address, say) as library:
        checkups = doctor.check(library)
    output(doctor.as_json(checkups) if as_json else doctor.lines(checkups))


def _architectures(names: list[str], only: str, engine: str, write: Path | None, *, as_json: bool, quiet: bool) -> None:
    """Run what the architectures lack, then print the verdicts and maybe write the page."""
    from bench.conformance import check, page
    from bench.models import architectures
    from bench.progress.progress import Progress
    from bench.publish import headline

    chosen = architectures.chosen(names)
    with Progress(quiet=quiet, figure=headline.figure) as progress:
        checked = check.check(chosen, progress, only=only, engine=engine)
    if write is not None:
        words = [*names, *(["--only", only] if only else []), *(["--engine", engine] if engine else [])]
        text = page.page(checked, shlex.join([*page.COMMAND.split(), *words, "--write", str(write)]))
        write.write_text(text, encoding="utf-8")
    output([*checked.verdicts] if as_json else page.lines(checked))


@envs_app.command(name="list")
def envs_list(as_json: Json = False) -> None:
    """Each environment, with its size on disk: ready, an interpreter of yours, or not built."""
    from bench.run import doctor as health

    output(list(health.states(sizes=True)) if as_json else health.environments(sizes=True))


@envs_app.command(name="build")
def envs_build(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...")] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Those that the suites of this version need on this machine.")
    ] = False,
    tools: Tools = False,
    quiet: Quiet = False,
) -> None:
    """Build environments now, several at once, so that a run need not."""
    from bench.cli import env_builds
    from bench.progress.progress import Progress

    if bool(names) == everything:
        raise UserError("name the environments to build, or give --all (python -m bench envs list shows them)")
    with Progress(quiet=quiet) as progress:
        env_builds.build(names or env_builds.of_suites(), progress, tools=tools)


@envs_app.command(name="download")
def envs_download(
    names: Annotated[list[str], typer.Argument(metavar="NAME...")],
    to: Annotated[Path, typer.Option("--to", metavar="FOLDER", help="Where the files go.")],
    gpu: Annotated[bool, typer.Option("--gpu", help="For a machine with an NVIDIA GPU.")] = False,
    quiet: Quiet = False,
) -> None:
    """Put the files that environments are built from into a folder, for a machine without a network."""
    from bench.envs import wheels
    from bench.progress.progress import Progress

    with Progress(quiet=quiet) as progress:
        for name in names:
            wheels.download(name, "cuda" if gpu else "cpu", to, progress.doing)
            progress.line(f"{name}: {to} (there: PIP_NO_INDEX=1 PIP_FIND_LINKS={to} python -m bench envs build {name})")


@envs_app.command(name="lock")
def envs_lock(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...")] = None,
    index: Annotated[str, typer.Option(metavar="URL", help="The index that tells the hashes.")] = "",
    package: Annotated[
        str, typer.Option("--add", metavar="PACKAGE", help="Add the hash of the file pip here is offered for it.")
    ] = "",
    quiet: Quiet = False,
) -> None:
    """Make the files of hashes again: all, or those of the environments named (`build`: of the build tools)."""
    from bench.envs import lock
    from bench.progress.progress import Progress

    with Progress(quiet=quiet) as progress:
        for name in names or lock.locked_names():
            if package:
                files = lock.add(name, package, progress.doing)
            else:
                files = lock.make(name, index or lock.PYPI, progress.doing)
            for file in files:
                progress.line(f"{name}: {file}")


@envs_app.command(name="remove")
def envs_remove(names: Annotated[list[str], typer.Argument(metavar="NAME...")]) -> None:
    """Delete the builds of environments; the next run that needs one builds it again."""
    from bench.envs import environment

    for name in names:
        builds = environment.remove(name)
        put(f"{name}: {f'removed {len(builds)} build(s)' if builds else 'was not built'}")


@envs_app.command(name="prune")
def envs_prune(yes: Annotated[bool, typer.Option("--yes", help="Remove without asking.")] = False) -> None:
    """Remove builds that no suite of this version needs, and downloads; sizes are told first."""
    from bench.cli import env_prune

    env_prune.prune(yes=yes)
