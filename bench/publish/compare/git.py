"""The records as they were at a commit: read from git's objects, so that the checkout stays as it is."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

from bench.contract.errors import UserError
from bench.contract.record import Result
from bench.store import is_record, parsed


def commit(results: Path, name: str) -> str | None:
    """The hash of a commit, tag or branch of the repository of `results`, or None; UserError without a repository."""
    _root(results)
    done = _git(results, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
    return done.stdout.decode().strip() if done.returncode == 0 else None


def records(results: Path, commit_hash: str) -> tuple[list[Result], list[str]]:
    """Every record below `results` at a commit, in the order of paths; a sentence for each unreadable one."""
    folder = results.resolve().relative_to(_root(results)).as_posix()
    listing = _git(results, "ls-tree", "-r", "-z", "--full-tree", "--name-only", commit_hash, "--", folder)
    paths = _output(listing, f"the files of commit {commit_hash}").decode(errors="replace").split("\0")
    paths = [path for path in paths if is_record(Path(path)) and "\n" not in path]
    objects = "".join(f"{commit_hash}:{path}\n" for path in paths).encode()
    blobs = _output(_git(results, "cat-file", "--batch", stdin=objects), f"the records of commit {commit_hash}")
    history, problems = [], []
    for path, text in zip(paths, _blobs(blobs), strict=True):
        try:
            history.append(parsed(Path(path), text))
        except UserError as error:
            problems.append(f"{error} (at commit {commit_hash[:12]})")
    return history, problems


def _blobs(stream: bytes) -> Iterator[bytes]:
    """What `git cat-file --batch` wrote: for each object a line that ends with its size, then its bytes."""
    start = 0
    while start < len(stream):
        end = stream.index(b"\n", start) + 1
        size = int(stream[start:end].rpartition(b" ")[2])
        yield stream[end : end + size]
        start = end + size + 1


def _root(results: Path) -> Path:
    done = _git(results, "rev-parse", "--show-toplevel")
    if done.returncode:
        reason = _errors(done)[0].removeprefix("fatal: ")
        raise UserError(f"git cannot read the repository of {results} ({reason}): give --results a folder inside one")
    return Path(done.stdout.decode().rstrip("\n")).resolve()


def _git(results: Path, *args: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    folder = results.resolve()
    while not folder.is_dir():
        folder = folder.parent  # a folder that only older commits have
    try:
        return subprocess.run(["git", "-C", str(folder), *args], input=stdin, capture_output=True, check=False)
    except FileNotFoundError as error:
        raise UserError("comparing commits needs git, which is not installed; install it") from error


def _output(done: subprocess.CompletedProcess[bytes], subject: str) -> bytes:
    if done.returncode:
        raise UserError(f"git could not read {subject}: {_errors(done)[-1]}")
    return done.stdout


def _errors(done: subprocess.CompletedProcess[bytes]) -> list[str]:
    return done.stderr.decode(errors="replace").strip().splitlines() or ["it gave no reason"]
