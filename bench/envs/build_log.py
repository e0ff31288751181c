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
_UV = ("Resolved ", "Prepared ", "Installed ")
_ATTEMPTS = 3
# What pip and uv say of a connection that gave no byte for the time that is allowed, or that broke off.
_BROKEN_OFF = re.compile(
    r"timed?[ -]?out|connection (was )?(reset|broken|aborted|closed)|IncompleteRead|response body", re.IGNORECASE
)
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
        downloads: set[str] = set()
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
                    again = progress.startswith("Downloading ") and progress in downloads
                    self.say(f"{progress}, again: it stalled or broke off" if again else progress)
                    downloads.add(progress)
            code = process.wait()
        if code:
            shown = " | ".join([*last][-_SHOWN_LINES:])[-400:]
            message = f"environment '{self.name}' could not be built ({shown}); the whole log is {self.log}"
            raise StepError(message, last)

    def fetch(self, argv: Sequence[str], variables: Mapping[str, str] | None = None) -> None:
        """As `step`, for a command that downloads: where a download stalled or broke off it is begun again, and told.

        What was downloaded whole before is in the installer's cache.
        """
        for attempt in range(2, _ATTEMPTS + 1):
            try:
                return self.step(argv, variables)
            except StepError as error:
                if not any(map(_BROKEN_OFF.search, error.lines)):
                    raise
            self.say(f"a download stalled or broke off: trying again, {attempt} of {_ATTEMPTS}")
        return self.step(argv, variables)


def milestone(line: str) -> str:
    """What a line of pip's, uv's or ninja's output says of the progress, or nothing."""
    if match := _NINJA.match(line):
        return f"compiling, {match[1]} of {match[2]} files"
    if line.startswith((*_PIP, *_UV)):
        return line.split(" (from ", 1)[0].split(":", 1)[0][:90]
    return ""
