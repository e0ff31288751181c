"""The records as they were at a commit: read from git's objects, so that the checkout stays as it is."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from bench.contract.errors import UserError
from bench.contract.record import Result
from bench.store import is_record, parsed


def commit(results: Path, word: str) -> str | None:
    """The hash of a commit, tag or branch of the repository that `results` is in; None where it has none.

    UserError without git, and where `results` is in no repository.
    """
    _top(results)
    found = _git(results, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{word}^{{commit}}")
    return found.stdout.decode().strip() if found.returncode == 0 else None


def records(results: Path, commit_hash: str) -> tuple[list[Result], list[str]]:
    """Every record below `results` at a commit, in the order of paths; a sentence for each unreadable one."""
    top = _top(results)
    below = results.resolve().relative_to(top).as_posix()
    listed = _git(results, "ls-tree", "-r", "-z", "--full-tree", "--name-only", commit_hash, "--", below)
    _whole(listed, f"the files of commit {commit_hash}")
    names = [name for name in listed.stdout.decode(errors="replace").split("\0") if is_record(Path(name))]
    asked = "".join(f"{commit_hash}:{name}\n" for name in names if "\n" not in name)
    found, problems = [], []
    blobs = _git(results, "cat-file", "--batch", given=asked.encode())
    _whole(blobs, f"the records of commit {commit_hash}")
    for name, text in zip(names, _blobs(blobs.stdout), strict=True):
        try:
            found.append(parsed(Path(name), text))
        except UserError as error:
            problems.append(f"{error} (at commit {commit_hash[:12]})")
    return found, problems


def _blobs(stream: bytes) -> list[bytes]:
    """What `git cat-file --batch` wrote: for each object a line that ends with its size, then its bytes."""
    found, at = [], 0
    while at < len(stream):
        end = stream.index(b"\n", at)
        size = int(stream[at:end].rpartition(b" ")[2])
        found.append(stream[end + 1 : end + 1 + size])
        at = end + size + 2
    return found


def _top(results: Path) -> Path:
    found = _git(results, "rev-parse", "--show-toplevel")
    if found.returncode:
        said = found.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise UserError(
            f"commits are compared by the records in their {results}, which git cannot read "
            f"({said[0].removeprefix('fatal: ')}); give a --results folder of a repository"
        )
    return Path(found.stdout.decode().rstrip("\n")).resolve()


def _git(results: Path, *words: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    folder = results.resolve()
    while not folder.is_dir():
        folder = folder.parent  # a folder that only older commits have
    try:
        return subprocess.run(["git", "-C", str(folder), *words], input=given, capture_output=True, check=False)
    except FileNotFoundError as error:
        raise UserError("comparing commits needs git, which is not installed; install it") from error


def _whole(done: subprocess.CompletedProcess[bytes], what: str) -> None:
    if done.returncode:
        said: Sequence[str] = done.stderr.decode(errors="replace").strip().splitlines()
        raise UserError(f"git could not read {what}: {said[-1] if said else 'no reason given'}")
