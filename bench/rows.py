"""Records as rows, for a notebook: one dict a round, its cell, status and metrics side by side."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.contract.errors import UserError
from bench.contract.record import Result
from bench.foreign import is_selected
from bench.store import Store

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_AUDIT = ("bits_per_weight", "quantized_fraction", "total_bytes", "weight_bytes", "parameters")


class Rows(list[dict[str, Any]]):
    """Rounds, one dict each, in the order of their paths on disk.

    Keys: `device` (the results folder's name), `suite`, `model`, `recipe`, `replicate_of` (the recipe that it is a
    replicate of, else ""), `engine`, `measurement` (the workload's
    or task's name; "" for the compression itself), `kind` ("workload", "task" or "artifact"), `round`, `status`
    ("ok", "unsupported", "failed"), `reason`, `marks` (comma-separated), `started` (ISO 8601), `duration_s`, `digest`;
    of the artifact `format`, `bits_per_weight`, `quantized_fraction`, `total_bytes`, `weight_bytes`, `parameters`;
    and every metric of the round under its own name (seconds, bytes, joules, fractions, as the name's end says).
    """

    def to_pandas(self) -> pd.DataFrame:
        """A pandas DataFrame; what a row lacks is NaN. UserError where pandas is not installed."""
        try:
            import pandas as pd
        except ModuleNotFoundError:
            raise UserError("to_pandas needs pandas: pip install pandas") from None
        return pd.DataFrame(list(self))

    def to_arrow(self) -> pa.Table:
        """A PyArrow table; what a row lacks is null. UserError where pyarrow is not installed."""
        try:
            import pyarrow as pa
        except ModuleNotFoundError:
            raise UserError("to_arrow needs pyarrow: pip install pyarrow") from None
        columns = dict.fromkeys(key for row in self for key in row)
        return pa.table({key: [row.get(key) for row in self] for key in columns})


def load_results(folder: str | Path = "results", device: str = "") -> Rows:
    """The records under a results folder, as rows; UserError without such a folder, or for an unreadable record.

    `device`: a glob of its folders' names. Imported records are left out unless it names them, as `foreign-*`.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise UserError(f"no results folder at {root}: run a suite first, as bench.run('configs/smoke.yaml')")
    store = Store(root)
    rows = of_records(record for record in store.all() if is_selected(record.hardware.slug, device))
    if store.problems:
        raise UserError(store.problems[0])
    return rows


def of_records(records: Iterable[Result]) -> Rows:
    """The rows of these records."""
    return Rows(_row(record) for record in records)


def _row(record: Result) -> dict[str, Any]:
    cell, artifact = record.cell, record.artifact
    row: dict[str, Any] = {
        "device": record.hardware.slug,
        "suite": record.suite,
        "model": cell.model.display_name,
        "recipe": cell.recipe.name,
        "replicate_of": cell.recipe.replicate_of,
        "engine": cell.engine.title,
        "measurement": cell.measurement,
        "kind": "workload" if cell.workload else "task" if cell.task else "artifact",
        "round": record.round,
        "status": record.status,
        "reason": record.reason,
        "marks": ", ".join(record.marks),
        "started": record.started,
        "duration_s": record.duration_s,
        "digest": record.digest,
    }
    if artifact is not None:
        row |= {"format": artifact.format, **{key: getattr(artifact.audit, key) for key in _AUDIT}}
    return {**row, **record.metrics}
