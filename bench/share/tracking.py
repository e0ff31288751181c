"""`bench export --to mlflow`: each round as a run of MLflow, with what was measured, on what, and every metric.

An experiment for each suite. A run has the record's hash as a tag: exporting again adds what is not there yet.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from bench.contract import wire
from bench.contract.errors import UserError
from bench.contract.record import Result
from bench.store import Store

_RECORD = "llm_bench.record"
_LONGEST = 500  # characters of a parameter or a tag
_PAGE = 1000
_STATES = {"ok": "FINISHED", "failed": "FAILED", "unsupported": "KILLED"}


def log(records: Sequence[Result], address: str) -> tuple[int, int]:
    """Log the records that are not there yet to the store at `address`, and give how many, and how many were there.

    `address`: a folder or a tracking server; "" is MLFLOW_TRACKING_URI, else the folder mlruns here. UserError where
    mlflow is not installed, or the store does not answer.
    """
    try:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
    except ModuleNotFoundError:
        raise UserError("MLflow needs its client: pip install 'llm-bench[mlflow]'") from None
    uri = _uri(address or os.environ.get("MLFLOW_TRACKING_URI", "") or "mlruns")
    by_suite: dict[str, list[Result]] = {}
    for record in records:
        by_suite.setdefault(record.suite, []).append(record)
    logged = 0
    with _patience():
        try:
            client = MlflowClient(tracking_uri=uri)
            for suite, its in by_suite.items():
                experiment = _experiment(client, f"llm-bench/{suite}")
                known = _known(client, experiment)
                for record in its:
                    if (name := record_id(record)) not in known:
                        _log(client, experiment, record, name)
                        logged += 1
        except (MlflowException, OSError) as error:
            first = str(error).strip().partition("\n")[0][:300]
            raise UserError(f"MLflow at {uri} takes no records ({first}): check the address, or start it") from None
    return logged, len(records) - logged


def record_id(record: Result) -> str:
    """What a run is known by: a hash of the record's place, digest and time."""
    return wire.digest([Store(Path()).name(record), record.digest, record.started])


def _uri(address: str) -> str:
    return address if "://" in address or address.startswith("file:") else Path(address).resolve().as_uri()


@contextmanager
def _patience() -> Iterator[None]:
    """A server that does not answer is given up after seconds, not minutes; a store of files is used without asking."""
    defaults = {
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
        "MLFLOW_ALLOW_FILE_STORE": "true",
    }
    missing = {name: value for name, value in defaults.items() if name not in os.environ}
    os.environ.update(missing)
    try:
        yield
    finally:
        for name in missing:
            os.environ.pop(name, None)


def _experiment(client: Any, name: str) -> str:
    experiment = client.get_experiment_by_name(name)
    return str(experiment.experiment_id) if experiment is not None else str(client.create_experiment(name))


def _known(client: Any, experiment: str) -> set[str]:
    """The records that have a run."""
    known: set[str] = set()
    token = None
    while True:
        page = client.search_runs([experiment], max_results=_PAGE, page_token=token)
        known |= {run.data.tags.get(_RECORD, "") for run in page if run.info.status != "RUNNING"}
        if not (token := page.token):
            return known


def _log(client: Any, experiment: str, record: Result, name: str) -> None:
    """One run; its tag is there from the start, and it counts once it has ended."""
    from mlflow.entities import Metric, Param

    began = _milliseconds(record.started)
    title = f"{record.cell.title} r{record.round}"[:_LONGEST]
    run = client.create_run(experiment, start_time=began, tags=_tags(record, name), run_name=title).info.run_id
    parameters = [Param(key, str(value)[:_LONGEST]) for key, value in _parameters(record).items()]
    metrics = [Metric(key, float(value), began, 0) for key, value in record.metrics.items()]
    for at in range(0, max(len(parameters), 1), 100):
        client.log_batch(run, params=parameters[at : at + 100])
    for at in range(0, max(len(metrics), 1), 1000):
        client.log_batch(run, metrics=metrics[at : at + 1000])
    ended = began + int(record.duration_s * 1000)
    client.set_terminated(run, status=_STATES[record.status], end_time=ended)


def _tags(record: Result, name: str) -> dict[str, str]:
    tags = {
        _RECORD: name,
        "llm_bench.digest": record.digest,
        "llm_bench.device": record.hardware.slug,
        "llm_bench.status": record.status,
        "llm_bench.reason": record.reason,
        "llm_bench.marks": ", ".join(record.marks),
    }
    return {key: value[:_LONGEST] for key, value in tags.items() if value}


def _parameters(record: Result) -> Mapping[str, Any]:
    """The cell, flat: the options of its steps, engine and task, the fields of its load."""
    cell = record.cell
    flat: dict[str, Any] = {
        "model": cell.model.display_name,
        "recipe": cell.recipe.name,
        "engine": cell.engine.title,
        "measurement": cell.measurement,
        "round": record.round,
        "recipe.steps": " > ".join(f"{step.method} {wire.dumps(step.options)}" for step in cell.recipe.steps),
    }
    flat |= {f"engine.{key}": value for key, value in cell.engine.options.items()}
    if cell.workload is not None:
        flat |= {f"workload.{key}": value for key, value in wire.plain(cell.workload).items()}
    if cell.task is not None:
        flat |= {f"task.{key}": value for key, value in cell.task.options.items()}
    if record.artifact is not None:
        flat |= {"format": record.artifact.format, "bits_per_weight": record.artifact.audit.bits_per_weight}
    return {key: value for key, value in flat.items() if value not in ("", None)}


def _milliseconds(started: str) -> int:
    try:
        return int(datetime.fromisoformat(started).timestamp() * 1000)
    except ValueError:
        return 0
