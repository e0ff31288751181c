"""What libraries say, for engines: receipts in words, logs, and why a load failed."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from re import Pattern
from typing import Any

from bench.contract.errors import UserError

_GIB = 1 << 30


def counts(names: Iterable[str]) -> str:
    """'Linear4bit x35, Linear x1'."""
    return ", ".join(f"{name} x{count}" for name, count in Counter(names).most_common())


def shares(sizes: Counter[str], *, least: int = 0) -> str:
    """'int32 74%, float32 26%' by bytes, those of fewer than `least` thousandths left out."""
    total = sizes.total()
    return ", ".join(f"{k} {size / total:.0%}" for k, size in sizes.most_common() if size * 1000 >= least * total)


def dtype_name(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")


def last_matches(patterns: Mapping[str, Pattern[str]], log: str) -> dict[str, str]:
    """The group of each pattern where it matched last, by the pattern's name; without those that match nowhere."""
    return {name: groups[-1] for name, pattern in patterns.items() if (groups := pattern.findall(log))}


def gib_sizes(patterns: Mapping[str, Pattern[str]], log: str) -> dict[str, int]:
    """Bytes, of patterns whose group is a number of GiB."""
    return {name: int(float(gib) * _GIB) for name, gib in last_matches(patterns, log).items()}


def load_error(library: str, error: Exception, *folders: Path) -> UserError:
    """The first sentence of a library's error, without pydantic's headline and this machine's paths."""
    text = str(error)
    for folder in folders:
        text = re.sub(rf"((in )?(the )?(directory|folder|path) )?['\"]?{re.escape(str(folder))}['\"]?", _place, text)
    lines = [line.strip().removeprefix("Value error, ") for line in text.splitlines()]
    lines = [line for line in lines if line and " validation error" not in line]
    reason = (lines[0].split(". ")[0] if lines else type(error).__name__)[:200]
    return UserError(f"{library} cannot load the artifact: {reason}")


def _place(match: re.Match[str]) -> str:
    return "in the artifact's folder" if match[2] else "the artifact's folder"


@contextmanager
def captured_output(*descriptors: int, quiet: Pattern[str] | None = None) -> Iterator[list[str]]:
    """What native code and children write to 1 or 2, in the list afterwards, and on stderr but for `quiet` lines."""
    log: list[str] = []
    sys.stdout.flush()
    sys.stderr.flush()
    originals = [os.dup(descriptor) for descriptor in descriptors]
    with tempfile.TemporaryFile() as file:
        try:
            for descriptor in descriptors:
                os.dup2(file.fileno(), descriptor)
            yield log
        finally:
            sys.stdout.flush()
            for descriptor, original in zip(descriptors, originals, strict=True):
                os.dup2(original, descriptor)
                os.close(original)
            file.seek(0)
            log.append(file.read().decode(errors="replace"))
            lines = log[0].splitlines(keepends=True)
            sys.stderr.writelines(line for line in lines if not (quiet and quiet.search(line)))
