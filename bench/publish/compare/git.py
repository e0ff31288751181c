"""The records as they were at a commit: read from git's objects, so that the checkout stays as it is."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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
    blobs = _blobs(results, [f"{commit_hash}:{path}" for path in paths], f"the records of commit {commit_hash}")
    history, problems = [], []
    for path, text in zip(paths, blobs, strict=True):
        try:
            history.append(parsed(Path(path), text or b""))
        except UserError as error:
            problems.append(f"{error} (at commit {commit_hash[:12]})")
    return history, problems


@dataclass(frozen=True)
class Change:
    """A commit, when it was made (ISO 8601), and which files below the results it changed."""

    commit: str
    date: str
    names: tuple[str, ...]


def changes(results: Path, since: str = "") -> list[Change]:
    """The commits of the branch that changed something below `results`, from the oldest on; merges count as one.

    `since`: only those after that commit. UserError where there is none of that name.
    """
    folder = results.resolve().relative_to(_root(results)).as_posix()
    start = commit(results, since) if since else None
    if since and start is None:
        raise UserError(f"no commit, tag or branch is called {since}")
    if commit(results, "HEAD") is None:
        return []
    words = ("--reverse", "--first-parent", "-m", "--no-renames", "--name-only", "-z", "--format=%x01%H %cI")
    done = _git(results, "log", *words, *([f"{start}..HEAD"] if start else []), "--", f":(top){folder}")
    listed = _output(done, "the history of the results").decode(errors="replace").split("\x01")[1:]
    return [_change(text, "" if folder == "." else f"{folder}/") for text in listed]


def _change(text: str, prefix: str) -> Change:
    """From what git wrote of one commit: hash and date, then names, each ended by a zero byte or a line."""
    head, *names = text.replace("\n", "\0").split("\0")
    commit_hash, _, date = head.partition(" ")
    return Change(
        commit_hash, date, tuple(name.removeprefix(prefix) for name in names if name.startswith(prefix) and name)
    )


def files(results: Path, wanted: Sequence[tuple[str, str]]) -> list[bytes | None]:
    """The bytes of each file below `results` at a commit, (commit, name); None where it was not there."""
    folder = results.resolve().relative_to(_root(results))
    objects = [f"{commit_hash}:{(folder / name).as_posix()}" for commit_hash, name in wanted]
    return list(_blobs(results, objects, "the records of the history"))


def _blobs(results: Path, objects: Sequence[str], subject: str) -> Iterator[bytes | None]:
    """The bytes of each object, commit:path; None where there is none.

    `git cat-file --batch` writes for each a line that ends with its size, then its bytes; or one that ends in missing.
    """
    names = "".join(f"{name}\n" for name in objects).encode()
    stream = _output(_git(results, "cat-file", "--batch", stdin=names), subject)
    start = 0
    while start < len(stream):
        end = stream.index(b"\n", start) + 1
        if stream[start:end].endswith(b" missing\n"):
            yield None
            start = end
        else:
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
        raise UserError("reading commits needs git, which is not installed; install it") from error


def _output(done: subprocess.CompletedProcess[bytes], subject: str) -> bytes:
    if done.returncode:
        raise UserError(f"git could not read {subject}: {_errors(done)[-1]}")
    return done.stdout


def _errors(done: subprocess.CompletedProcess[bytes]) -> list[str]:
    return done.stderr.decode(errors="replace").strip().splitlines() or ["it gave no reason"]
