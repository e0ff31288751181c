"""`bench export`: records as a table for other programs, a row a round; the columns are those of `bench.Rows`.

Parquet by pyarrow or polars, whichever is installed. Metrics are floats in every format, whatever their first value.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from bench.contract import outside, wire
from bench.contract.errors import UserError
from bench.contract.record import Result
from bench.rows import Rows, of_records

FileFormat = Literal["parquet", "csv", "jsonl"]
_WHOLE = frozenset({"round", "total_bytes", "weight_bytes", "parameters"})


def write(records: Sequence[Result], to: FileFormat, file: Path) -> int:
    """Write a row for each record, and return how many; a file that is there is replaced, once all is written.

    UserError where the library that writes the format is not installed.
    """
    rows = of_records(records)
    data = {"parquet": _parquet, "csv": _csv, "jsonl": _jsonl}[to](rows)
    file.parent.mkdir(parents=True, exist_ok=True)
    wire.write(file, data)
    return len(rows)


def columns(rows: Rows) -> dict[str, list[Any]]:
    """Values by column, in the order in which rows first have them; None where a row lacks one."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [_value(name, row) for row in rows] for name in names}


def _value(name: str, row: Mapping[str, Any]) -> Any:
    value = row.get(name)
    return float(value) if isinstance(value, int) and name not in _WHOLE else value


def _parquet(rows: Rows) -> bytes:
    table, out = columns(rows), io.BytesIO()
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ModuleNotFoundError:
        return _parquet_by_polars(table)
    parquet.write_table(pa.table(table), out)
    return out.getvalue()


def _parquet_by_polars(table: Mapping[str, Sequence[Any]]) -> bytes:
    try:
        import polars as pl
    except ModuleNotFoundError:
        sentence = "Parquet needs pyarrow or polars: pip install 'llm-bench[parquet]', or --to csv or jsonl"
        raise UserError(sentence) from None
    out = io.BytesIO()
    pl.DataFrame(table, infer_schema_length=None).write_parquet(out)
    return out.getvalue()


def _csv(rows: Rows) -> bytes:
    """What a row lacks is empty; text that a spreadsheet would run as a formula has an apostrophe before it."""
    table, out = columns(rows), io.StringIO()
    writer = csv.writer(out)
    writer.writerow(table)
    writer.writerows([outside.csv_cell(value) for value in line] for line in zip(*table.values(), strict=True))
    return out.getvalue().encode()


def _jsonl(rows: Rows) -> bytes:
    """What a row lacks is left out."""
    lines = (wire.dumps({name: _value(name, row) for name in row}) for row in rows)
    return "".join(f"{line}\n" for line in lines).encode()
