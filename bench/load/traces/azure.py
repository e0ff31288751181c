"""Azure LLM inference traces of 2023 and 2024 (CSV): https://github.com/Azure/AzurePublicDataset."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from bench.load.traces.format import CountTokens, TraceRequest, has_columns, read_csv

_COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
_EPOCH = datetime(2020, 1, 1, tzinfo=UTC)
DESCRIPTION = f"an Azure LLM inference CSV ({','.join(_COLUMNS)})"


def matches(first_line: str) -> bool:
    return has_columns(first_line, _COLUMNS)


def read(path: Path, stream: TextIO, _: CountTokens | None) -> list[TraceRequest]:
    return read_csv(path, stream, _COLUMNS, _seconds)


def _seconds(text: str) -> float:
    """Of a date and time, in UTC where it names no zone; digits beyond the microsecond are dropped."""
    moment = datetime.fromisoformat(text)
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH).total_seconds()
