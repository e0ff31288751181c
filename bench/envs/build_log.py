"""The commands that build an environment: their output goes to a log, their milestones to a person."""

from __future__ import annotations

import io
import os
import re
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from bench.contract import outside
from bench.contract.errors import UserError
from bench.contract.job import Report
from bench.process import child

_PIP = ("Collecting ", "Downloading ", "Building wheel for ", "Installing collected packages")
_LINE = 1 << 16  # characters that are read at once
_LINES, _SHOWN_LINES = 1000, 3  # of what a failed command printed last: what an error keeps, and shows
_NINJA = re.compile(r"^\[(\d+)/(\d+)\] ")


def python_variable(name: str) -> str:
    """The variable in which a user names an interpreter of their own for the environment."""
    return f"LLM_BENCH_PYTHON_{name.upper().replace('-', '_')}"


class StepError(UserError):
    """A command of a build failed; `lines` are the last that it printed, stripped."""

    def __init__(self, message: str, lines: Sequence[str]) -> None:
        super().__init__(message)
        self.lines = tuple(lines)


@dataclass(frozen=True)
class Build:
    """The environment that is being built, its log, and where its progress goes."""

    name: str
    log: Path
    report: Report

    def say(self, text: str) -> None:
        self.report(f"environment {self.name}: {text}")

    def step(self, argv: Sequence[str], variables: Mapping[str, str] | None = None) -> None:
        """Run one command with its output appended to the log; StepError with its last lines if it fails."""
        last: deque[str] = deque(maxlen=_LINES)
        scrub = outside.scrubber()
        with (
            self.log.open("a") as log,
            child.running(argv, variables={**os.environ, **(variables or {})}) as process,
            io.TextIOWrapper(cast("IO[bytes]", process.stdout), errors="replace") as output,
        ):
            while line := output.readline(_LINE):
                text = outside.printable_lines(scrub(line))
                log.write(text)
                last.extend(filter(None, [text.strip()]))
                if progress := milestone(text.strip()):
                    self.say(progress)
            code = process.wait()
        if code:
            shown = " | ".join([*last][-_SHOWN_LINES:])[-400:]
            message = f"environment '{self.name}' could not be built ({shown}); the whole log is {self.log}"
            raise StepError(message, last)


def milestone(line: str) -> str:
    """What a line of pip's or ninja's output says of the progress, or nothing."""
    if match := _NINJA.match(line):
        return f"compiling, {match[1]} of {match[2]} files"
    if line.startswith(_PIP):
        return line.split(" (from ", 1)[0].split(":", 1)[0][:90]
    return ""
