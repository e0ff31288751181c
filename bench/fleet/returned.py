"""What comes back from a node, on the driver's disk: records as files, and the logs of what failed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from bench import paths
from bench.contract import wire
from bench.contract.record import Result
from bench.store import Store, is_record, parsed

_ATTACHMENTS = ("traces", "items")


def put(store: Store, files: Mapping[str, bytes], *, is_home: bool) -> list[Result]:
    """Write the records among the files, each after its attachments, as the store itself does; those of rounds.

    The device's description is the driver's own; its ceilings are those of the device that times.
    """
    rounds: list[Result] = []
    for name, data in files.items():
        path = store.root / name
        if path.name == "ceiling.json" and is_home:
            _write(path, data)
        if not is_record(path):
            continue
        record = parsed(path, data)
        if record.cell.workload is None and record.cell.task is None and _is_there(store, record):
            continue
        for attachment in _ATTACHMENTS:
            beside = f"{name.removesuffix('.json')}.{attachment}.jsonl.gz"
            if beside in files:
                _write(store.root / beside, files[beside])
            else:
                (store.root / beside).unlink(missing_ok=True)
        _write(path, data)
        if record.cell.workload is not None or record.cell.task is not None:
            rounds.append(record)
    return rounds


def put_logs(logs: Mapping[str, bytes], node: str, what: str) -> Path | None:
    """Leave the logs in the cache; their folder, or None where there are none."""
    if not logs:
        return None
    folder = paths.cache_folder("logs", "fleet")
    for name, data in logs.items():
        wire.write(folder / f"{_safe(what)}-{_safe(node)}-{_safe(name)}.log", data)
    return folder


def _is_there(store: Store, record: Result) -> bool:
    existing = store.find(record) if record.status == "ok" else None
    return existing is not None and existing.digest == record.digest and existing.status == "ok"


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    wire.write(path, data)


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name)[:80]
