"""BurstGPT (CSV, with or without its session columns): https://github.com/HPMLL/BurstGPT."""

from __future__ import annotations

from pathlib import Path
from typing import TextIO

from bench.load.traces.format import CountTokens, TraceRequest, has_columns, read_csv

_COLUMNS = ("Timestamp", "Request tokens", "Response tokens")
DESCRIPTION = f"a BurstGPT CSV ({','.join(_COLUMNS)})"


def matches(first_line: str) -> bool:
    return has_columns(first_line, _COLUMNS)


def read(path: Path, stream: TextIO, _: CountTokens | None) -> list[TraceRequest]:
    return read_csv(path, stream, _COLUMNS, float)
