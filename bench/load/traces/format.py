"""What the readers of all trace formats share: the request they return and the errors they raise."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TextIO

from bench.contract.errors import UserError
from bench.contract.prompt import TextPrompt

CountTokens = Callable[[str], int]
_LINE_MAX = 1 << 20  # characters; the ids of a prompt of a million tokens are fewer
_TOKENS_MAX = 1 << 24  # of a prompt or an answer: more than any model attends to


@dataclass(frozen=True, slots=True)
class TraceRequest:
    """One recorded request.

    `time_s` counts from the first request, to the microsecond. `blocks` are Mooncake's ids of the prompt's
    512-token blocks, the last one partly filled: equal leading ids are equal prefixes. `text` is ShareGPT's prompt.
    `prompt`: of real text, as it is asked; `natural`: its answer ends where the model ends it.
    """

    time_s: float
    prompt_tokens: int
    new_tokens: int
    blocks: tuple[int, ...] = ()
    text: str = ""
    prompt: TextPrompt | None = None
    natural: bool = False


class UnknownFormatError(ValueError):
    """The file is in none of the formats."""


class TraceFormat(Protocol):
    """A module that reads one format."""

    DESCRIPTION: str

    def matches(self, first_line: str) -> bool:
        """Whether a file that begins with this line is in the format."""
        ...

    def read(self, path: Path, stream: TextIO, count_tokens: CountTokens | None, /) -> list[TraceRequest]:
        """The requests of a file from its start; UserError where a line is damaged."""
        ...


def request(time_s: float, prompt_tokens: int, new_tokens: int, blocks: tuple[int, ...] = ()) -> TraceRequest:
    """ValueError for values that no request can have."""
    if not (math.isfinite(time_s) and 0 <= prompt_tokens <= _TOKENS_MAX and 0 <= new_tokens <= _TOKENS_MAX):
        raise ValueError(f"invalid request: time {time_s} s, {prompt_tokens} prompt and {new_tokens} answer tokens")
    return TraceRequest(time_s, prompt_tokens, new_tokens, blocks)


def read_csv(
    path: Path, stream: TextIO, columns: tuple[str, str, str], seconds: Callable[[str], float]
) -> list[TraceRequest]:
    """The requests of a CSV file, from its columns of the time and the prompt's and the answer's tokens."""
    rows = csv.reader(lines(path, stream))
    try:
        header = [name.strip() for name in next(rows)]
    except csv.Error as error:
        raise damaged(path, 1, str(error)) from error
    if missing := [name for name in columns if name not in header]:
        raise damaged(path, 1, f"missing column{'s' if len(missing) > 1 else ''} {', '.join(missing)}")
    time, prompt, new = map(header.index, columns)
    try:
        return [request(seconds(row[time]), int(row[prompt]), int(row[new])) for row in rows if row]
    except (ValueError, IndexError, csv.Error) as error:
        raise damaged(path, rows.line_num, "expected a time and two token counts") from error


def lines(path: Path, stream: TextIO) -> Iterator[str]:
    """The lines of a file; UserError at one that is longer than a request can be, before it is read whole."""
    number = 0
    while line := stream.readline(_LINE_MAX):
        number += 1
        if len(line) == _LINE_MAX and not line.endswith("\n"):
            raise damaged(path, number, f"it is longer than {_LINE_MAX:,} characters")
        yield line


def has_columns(first_line: str, columns: tuple[str, str, str]) -> bool:
    """Whether a CSV header has any of the columns: a file that lacks only one is damaged, not of another format."""
    return not {name.strip() for name in first_line.split(",")}.isdisjoint(columns)


def damaged(path: Path, line: int, problem: str) -> UserError:
    return UserError(f"{path}, line {line}: {problem}; fix or remove that line, or download the file again")
