"""`bench envs prune`: what no suite needs is listed with its size, then removed."""

from __future__ import annotations

import sys

import typer

from bench.cli.params import put
from bench.contract.errors import UserError
from bench.envs import disk
from bench.suite import environments


def prune(*, yes: bool) -> None:
    """Remove the builds that no suite of this version needs, and the downloads; asks first where not told `yes`."""
    leftovers = disk.leftovers(environments.needed())
    if not leftovers:
        put("nothing to remove: suites need every build that is there")
        return
    for leftover in leftovers:
        put(f"{leftover.folder.name}: {disk.shown(leftover.frees_bytes)}, {leftover.reason}")
    frees = disk.freed_bytes(*(leftover.folder for leftover in leftovers))
    put(f"together {disk.shown(frees)}, and downloads kept for builds")
    if not yes:
        if not sys.stdin.isatty():
            raise UserError("nothing was removed: add --yes to remove these")
        if not typer.confirm("Remove them?"):
            return
    refused: list[str] = []
    for leftover in leftovers:
        try:
            disk.remove(leftover)
        except UserError as error:
            refused.append(str(error))
    put(f"removed {len(leftovers) - len(refused)} build(s), and {disk.shown(disk.clear_downloads())} of downloads")
    if refused:
        raise UserError("; ".join(refused))
