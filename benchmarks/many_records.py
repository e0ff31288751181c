"""What records cost as they grow: user CPU seconds and peak memory of the verbs that read them.

Run from the repository's root: `python -m benchmarks.many_records`. Makes `--records` (4,000 at the least) of the
fake engine in a temporary folder, of several suites, devices, recipes, engines, loads and tasks, and a suite of
`--cells` cells with all its records; then runs each verb in a process of its own, once with no index of the records
and once with the one that the first run left. Seconds are user CPU: a busy machine changes them little. The last
line is JSON.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import yaml

from bench.contract.record import Artifact, Audit, Hardware, Result
from bench.contract.spec import Cell, EngineSpec
from bench.run import plan as planner
from bench.run import records
from bench.run.planned import Plan, PlannedArtifact
from bench.store import Store
from bench.suite import config
from benchmarks import script

SUITES, ENGINES, LOADS, TASKS, ROUNDS = 5, 5, 12, 4, 3
_PER_ROW = LOADS * ROUNDS + TASKS
_CELLS = 50  # of a row, in the suite of many cells: 40 loads and 10 tasks on 20 engines
# At 100,000 records and 50,000 cells: user CPU seconds, and MB of memory where that is limited.
TARGETS = {
    "table": (10.0, 500.0),
    "report": (30.0, None),
    "compare": (5.0, None),
    "recommend": (5.0, None),
    "run": (10.0, None),
    "plan": (10.0, None),
}
_AUDIT = Audit(
    "hf", 20374707, 19934208, 4983552, 3932160, 15728640, 32.0, 0.0, tied_head=True, vocab_size=4096, context=1024
)
_LATENCIES_S = {
    "ttft_s": 0.01,
    "tpot_s": 0.002,
    "itl_p50_s": 0.002,
    "itl_p90_s": 0.0022,
    "itl_p95_s": 0.0024,
    "e2el_s": 0.13,
}
_RATES = {"output_tok_per_s": 490.0, "prefill_tok_per_s": 12800.0, "decode_tok_per_s": 500.0, "request_per_s": 7.7}
_SIZES = {"peak_memory_bytes": 24e6, "load_s": 0.4, "cold_start_s": 0.5, "measured_s": 0.7}


class Cost(NamedTuple):
    """Of one process: user CPU seconds, MB of memory at its peak, bytes that it printed."""

    cpu_s: float
    peak_mb: float
    printed_bytes: int


def main() -> None:
    parser = script.parser(__doc__, records=100_000, cells=50_000)
    parser.add_argument(
        "--verbs", nargs="*", default=["table", "json", "report", "compare", "recommend", "run", "plan"]
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="many-records-") as name:
        summary = measure(Path(name), given.records, given.cells, given.verbs)
    print(json.dumps(summary))


def measure(folder: Path, count: int, cells: int, verbs: Sequence[str]) -> dict[str, Any]:
    """The costs of each verb, without and with an index; records are made for the verbs that are measured."""
    results, wide = folder / "results", folder / "wide"
    reading = [verb for verb in verbs if verb not in ("run", "plan")]
    made = make(results, folder, count) if reading else 0
    suite = folder / "cells.yaml"
    planned = make_cells(wide, suite, cells) if len(reading) < len(verbs) else 0
    recommended = ["--suite", "suite-0", "--device", "device-0", "--workload", "offline-b1-p128-n64"]
    commands = {
        "table": ["table", "--results", results],
        "json": ["table", "--format", "json", "--results", results],
        "report": ["report", "--results", results],
        "compare": ["compare", "baseline", "sparse-001", "--results", results],
        "recommend": ["recommend", *recommended, "--results", results],
        "run": ["run", suite, "--results", wide],
        "plan": ["plan", suite, "--results", wide],
    }
    summary: dict[str, Any] = {"records": made, "cells": planned}
    print(f"{made} records; {planned} cells\n{'':10}{'no index':>10}{'index':>10}{'peak MB':>10}{'printed MB':>12}")
    for verb in verbs:
        first, again = (run(folder / f"cache-{verb}", commands[verb]) for _ in range(2))
        summary[verb] = {"no_index_cpu_s": first.cpu_s, **again._asdict()}
        target = TARGETS.get(verb)
        aims = "" if target is None else f"  target {target[0]:.0f} s" + (f", {target[1]:.0f} MB" if target[1] else "")
        times = f"{first.cpu_s:>8.1f} s{again.cpu_s:>8.1f} s"
        print(f"{verb:10}{times}{again.peak_mb:>10.0f}{again.printed_bytes / 1e6:>12.1f}{aims}", flush=True)
    return summary


def run(cache: Path, words: Sequence[object]) -> Cost:
    """Run a verb to its end in a process of its own."""
    env = {**os.environ, "LLM_BENCH_CACHE": str(cache), "COLUMNS": "120"}
    argv = [sys.executable, "-m", "bench", *map(str, words)]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(argv, cwd=script.ROOT, env=env, stdout=out, stderr=errors)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            errors.seek(0)
            sys.exit(f"{' '.join(argv)} failed: {errors.read()[-1500:].decode(errors='replace')}")
        return Cost(usage.ru_utime, usage.ru_maxrss / 1e3, out.tell() or os.fstat(out.fileno()).st_size)


def make(results: Path, folder: Path, count: int, *, suites: int = SUITES) -> int:
    """About so many records of several suites on two devices: with their number grows that of the recipes."""
    rows = max(1, round(count / _PER_ROW))
    recipes = max(1, round(rows / (suites * 2 * ENGINES)))
    devices = [_hardware(f"device-{i}") for i in range(2)]
    written = 0
    for number in range(suites):
        file = folder / f"suite-{number}.yaml"
        _suite(file, recipes, ENGINES, LOADS, TASKS, ROUNDS)
        suite = replace(config.load_suite(file), seed=number)
        for hardware in devices:
            written += write(planner.plan(suite, fetch=False, on=[hardware]), Store(results))
    return written


def make_cells(results: Path, file: Path, cells: int) -> int:
    """A suite of so many cells of one round each, with all its records."""
    rows = max(2, round(cells / _CELLS))
    engines = min(20, rows)
    _suite(file, max(1, round(rows / engines)), engines, 40, 10, 1)
    planned = planner.plan(config.load_suite(file), fetch=False)
    write(planned, Store(results))
    return len(planned.cells)


def write(planned: Plan, store: Store) -> int:
    """The records of the plan's rounds and artifacts, as a run would leave them; how many."""
    source = random.Random(planned.suite.name)  # noqa: S311  (reproducible, not secret)
    began = datetime(2026, 1, 1, tzinfo=UTC)
    cells: dict[int, Cell] = {}
    written = 0
    for result in itertools.chain(_artifacts(planned), _rounds(planned, cells, source)):
        dated = replace(result, started=(began + timedelta(seconds=written)).isoformat())
        path = store.path(dated)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(orjson.dumps(dated, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS))
        written += 1
    return written


def _artifacts(planned: Plan) -> Iterator[Result]:
    for artifact in planned.artifacts:
        cell = records.public_cell(Cell(artifact.model, artifact.recipe, EngineSpec(""), artifact.hardware.device))
        yield Result(
            artifact.digest, planned.suite.name, cell, 0, "ok", artifact.hardware, artifact=_artifact(artifact)
        )


def _rounds(planned: Plan, cells: dict[int, Cell], source: random.Random) -> Iterator[Result]:
    built = {artifact.recipe.name: _artifact(artifact) for artifact in planned.artifacts}
    for item in planned.items:
        cell = cells.setdefault(id(item.cell), records.public_cell(item.cell))
        yield replace(
            records.skeleton(planned, item, cell),
            status="ok",
            artifact=built[item.artifact.recipe.name],
            environment={"numpy": "2.2.6", "python": "3.11.7", "safetensors": "0.6.2", "tokenizers": "0.22.1"},
            receipts={"compute_dtype": "float32", "device": "cpu", "kernel": "none", "weight_dtype": "float32"},
            facts=_task_facts(source) if item.cell.task else _load_facts(source),
            metrics=_task_metrics(source) if item.cell.task else _load_metrics(source),
            duration_s=_near(source, 1.0),
        )


def _artifact(planned: PlannedArtifact) -> Artifact:
    return records.public_artifact(
        Artifact(planned.digest, "hf", planned.resolved.identity, planned.steps, _AUDIT, 1.5, 420065280, 1.5)
    )


def _load_metrics(source: random.Random) -> dict[str, float]:
    return {name: _near(source, value) for name, value in {**_LATENCIES_S, **_RATES, **_SIZES}.items()}


def _task_metrics(source: random.Random) -> dict[str, float]:
    nll = _near(source, 9.1)
    return {"nll_per_token": nll, "perplexity": 2.718281828**nll, "bits_per_byte": nll / 2, "scored_tokens": 2032.0}


def _load_facts(source: random.Random) -> dict[str, Any]:
    names = ("available_min_bytes", "before_available_bytes", "hwm_bytes", "peak_rss_bytes", "worker_hwm_bytes")
    sizes = {name: int(_near(source, 2e10)) for name in names}
    times = {name: _near(source, 0.3) for name in ("cold_start_s", "first_ttft_s", "load_s", "watched_s", "warmup_cv")}
    return {**sizes, **times, "samples": 12, "warmup_requests": 3, "weights_bytes": 19934464, "before_top_process": "x"}


def _task_facts(source: random.Random) -> dict[str, Any]:
    windows = {"window_nll": [_near(source, 9.1) for _ in range(16)], "window_tokens": [127] * 16}
    return {**_load_facts(source), **windows, "window_bytes": [500] * 16, "windows": 16, "sha256": "0" * 64}


def _near(source: random.Random, value: float) -> float:
    """The value with some noise, to six digits as in records."""
    return float(f"{value * source.uniform(0.98, 1.02):.6g}")


def _hardware(slug: str) -> Hardware:
    size = 24 << 30
    return Hardware("cpu", slug, slug, size, "a CPU", 2, size, ("avx2", "fma"), "float32", "Linux 6.8")


def _suite(file: Path, recipes: int, engines: int, loads: int, tasks: int, rounds: int) -> None:
    """A suite of the fake engine; its recipes but the first need an environment that is not built for it."""
    sparse = [
        {"name": f"sparse-{i:03}", "steps": [{"method": "magnitude", "sparsity": round(0.1 + 0.0005 * i, 4)}]}
        for i in range(1, recipes)
    ]
    data: Mapping[str, Any] = {
        "model": str(script.DEMO),
        "recipes": [{"name": "baseline", "steps": []}, *sparse],
        "engines": [{"name": "fake", "label": f"fake-{i}", "itl_s": 0.002 + 0.001 * i} for i in range(engines)],
        "workloads": [{"batch": 1, "prompt_tokens": 128, "new_tokens": 64 + i} for i in range(loads)],
        "tasks": [
            {"task": "perplexity", "corpus": "stdlib", "context": 128, "tokens": 2048 + 128 * i} for i in range(tasks)
        ],
        "devices": ["cpu"],
        "rounds": rounds,
        "settle_s": 0,
    }
    file.write_text(yaml.safe_dump(data), encoding="utf-8")


if __name__ == "__main__":
    main()
