"""Commands that build an environment: run to their end, their output in a log, their progress told."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.contract.errors import UserError

Report = Callable[[str], None]

# Runs a command that dies with this process (Linux): a build must not go on beside the next one's.
MORTAL = """
import ctypes, os, sys
if sys.platform == "linux": ctypes.CDLL(None).prctl(1, 9)
os.execvp(sys.argv[1], sys.argv[1:])
"""
_PIP = ("Collecting ", "Downloading ", "Building wheel for ", "Installing collected packages")
_NINJA = re.compile(r"^\[(\d+)/(\d+)\] ")


@dataclass(frozen=True)
class Build:
    """What is being built, where its log is, and who wants to hear of it."""

    name: str
    log: Path
    report: Report

    def say(self, words: str) -> None:
        self.report(f"environment {self.name}: {words}")

    def step(self, argv: Sequence[str], variables: Mapping[str, str] | None = None) -> None:
        """Run one command with its output appended to the log; UserError with its last lines if it fails."""
        mortal = [sys.executable, "-c", MORTAL, *argv]
        with (
            self.log.open("a") as sink,
            subprocess.Popen(
                mortal,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,
                env={**os.environ, **(variables or {})},
            ) as process,
        ):
            try:
                for line in process.stdout or ():
                    sink.write(line)
                    if words := milestone(line.strip()):
                        self.say(words)
                code = process.wait()
            except BaseException:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                raise
        if code:
            last = [text for text in self.log.read_text().splitlines() if text.strip()][-3:]
            raise UserError(
                f"environment '{self.name}' could not be built ({' | '.join(last)[-400:]}); the whole log is {self.log}"
            )


def milestone(line: str) -> str:
    """The part of a line of pip's or ninja's output that tells a person what is happening, or nothing."""
    if found := _NINJA.match(line):
        return f"compiling, {found[1]} of {found[2]} files"
    if line.startswith(_PIP):
        return line.split(" (from ", 1)[0].split(":", 1)[0][:90]
    return ""
