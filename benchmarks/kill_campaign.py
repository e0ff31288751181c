"""What is lost where a run is ended: runs are killed at all moments, and what they leave is looked at.

    .venv/bin/python -m benchmarks.kill_campaign

Suites of the fake engine, scored, in its worker and behind its server, are ended by SIGKILL, SIGTERM, SIGINT and
SIGHUP: in the first half second of the run, in the first half second of a worker or server, at any other moment, and
with a second run of the same suite beside it. Then the suite is run again, to its end. Exit code 1 where a record was
lost, changed or not whole, a round was run twice, a process or half a file was left, or a run that was told to stop did
not end with 130 and its last line.
"""

from __future__ import annotations

import itertools
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from bench.contract.errors import UserError
from bench.store import Store
from benchmarks import script

_SUITE = """
model: {demo}
recipes: [fp32, fp16]
engines: [{{name: fake, load_s: 1.2}}]  # longer than a process may be left behind
workloads: [{load}]
tasks: [{{task: perplexity, corpus: stdlib, context: 64, tokens: 256}}]
devices: [cpu]
rounds: 2
settle_s: 0
"""
_LOADS = {
    "offline": "{batch: 1, prompt_tokens: 4, new_tokens: 4, repeats: 2}",
    "served": "{kind: closed, concurrency: 2, requests: 12, prompt_tokens: 4, new_tokens: 4}",
}
_ROUNDS = 2 * (2 + 1)  # of each recipe: rounds of its load, and one of its task, which run in threads
_SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_MOMENTS = ("its first 0.5 s", "first 0.5 s of a child", "any", "any, two runs")
_CHILD = {"offline": b"bench.process.worker_main", "served": b"bench.engines.fake"}
_GONE_S, _MOST_S, _LATEST_S = 1.0, 180.0, 8.0
_MOST_RUNS = 100  # of one suite: soon complete, or broken
_FINISHED = re.compile(r"^\[ *\d+/\d+\] \S+ (\S+ round \d+) (?:ok|failed)", re.MULTILINE)
_FAULTS = ("lost", "changed", "broken", "doubled", "failed", "orphans", "left", "codes")


@dataclass
class Row:
    """The kills of one kind of load at one kind of moment; `faults` are counted by name."""

    load: str
    moment: str
    kills: int = 0
    unheard: int = 0  # signals before the command's first line, of which nothing can be asked
    records: int = 0
    gone_s: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def fault(self, name: str, count: int, note: str) -> None:
        if count:
            self.faults[name] += count
            self.notes.append(f"{self.load}, {self.moment}: {name}: {note}")


@dataclass(frozen=True)
class Run:
    """A run of a suite, and the file its stderr goes to."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def stderr(self) -> str:
        return self.log.read_text()


@dataclass(frozen=True)
class Place:
    """A suite with its results and its cache, by which its processes are known."""

    folder: Path
    load: str

    @property
    def results(self) -> Path:
        return self.folder / "results"

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    def start(self) -> Run:
        suite = self.folder / "killed.yaml"
        suite.write_text(_SUITE.format(demo=script.DEMO, load=_LOADS[self.load]))
        argv = [sys.executable, "-m", "bench", "run", str(suite), "--results", str(self.results)]
        variables = {**os.environ, "LLM_BENCH_CACHE": str(self.cache), "LLM_BENCH_CEILING": "off"}
        log = self.folder / f"{time.monotonic_ns()}.log"
        with log.open("wb") as file, Path(os.devnull).open("r+b") as null:
            return Run(
                subprocess.Popen(argv, cwd=script.ROOT, env=variables, stdin=null, stdout=null, stderr=file), log
            )

    def records(self) -> dict[Path, bytes]:
        return {file: file.read_bytes() for file in sorted(self.results.rglob("r*.json"))}

    def is_complete(self) -> bool:
        return sum(map(_is_round, self.results.rglob("r*.json"))) == _ROUNDS

    def processes(self) -> list[int]:
        """Those that have this cache among their variables."""
        mark = f"LLM_BENCH_CACHE={self.cache}".encode()
        pids = []
        for file in Path("/proc").glob("[0-9]*/environ"):
            try:
                if mark in file.read_bytes().split(b"\0"):
                    pids.append(int(file.parent.name))
            except OSError:  # another's, or gone
                continue
        return pids


def main() -> int:
    arguments = script.parser(__doc__, offline=50, served=20, seed=0)
    given = arguments.parse_args()
    for number in set(_SIGNALS) - {signal.SIGKILL}:  # what is ignored here, as behind nohup, would be so in the runs
        signal.signal(number, signal.SIG_DFL)
    began = time.monotonic()
    chance = random.Random(given.seed)  # noqa: S311  (reproducible, not secret)
    rows = [row for load in ("offline", "served") for row in _campaign(load, getattr(given, load), chance)]
    _print(rows, time.monotonic() - began)
    return int(any(row.faults.total() for row in rows))


def _campaign(load: str, kills: int, chance: random.Random) -> Iterator[Row]:
    """Kill runs of one load, over and over, from an empty cache to the suite's end."""
    rows = [Row(load, moment) for moment in _MOMENTS]
    while sum(row.kills for row in rows) < kills and not any(row.faults["lost"] for row in rows):
        with tempfile.TemporaryDirectory(prefix="killed-") as folder:
            place = Place(Path(folder), load)
            row = rows[0]
            for _ in range(_MOST_RUNS):
                if place.is_complete() or sum(row.kills for row in rows) >= kills:
                    break
                row = min(rows, key=lambda row: row.kills)
                _kill(place, row, chance)
            _finish(place, row)
    return iter(rows)


def _kill(place: Place, row: Row, chance: random.Random) -> None:
    """Start a run, or two, end one of them at a moment, and look at what there is."""
    number = chance.choice(_SIGNALS)
    before = place.records()
    runs = [place.start() for _ in range(2 if row.moment.endswith("two runs") else 1)]
    victim = chance.choice(runs)
    _wait(place, victim.process, row.moment, chance)
    if victim.process.poll() is None:
        is_heard = number == signal.SIGKILL or _hears(victim.process.pid, number)
        victim.process.send_signal(number)
        row.kills += 1
        victim.process.wait(_MOST_S)
        _judge_end(victim, number, row, is_heard=is_heard)
    for other in runs:
        if other is not victim:
            code = other.process.wait(_MOST_S)
            row.fault("codes", int(code != 0), f"the other run ended with {code}: {other.stderr[-300:]!r}")
    _judge(place, before, runs, row, is_killed=number == signal.SIGKILL)


def _wait(place: Place, run: subprocess.Popen[bytes], moment: str, chance: random.Random) -> None:
    if moment == _MOMENTS[0]:
        time.sleep(chance.uniform(0.0, 0.5))
    elif moment == _MOMENTS[1]:
        known: set[int] = set()
        count, end = chance.randint(1, 3), time.monotonic() + _MOST_S
        while len(known) < count and run.poll() is None and time.monotonic() < end:
            known |= set(_children(run.pid, _CHILD[place.load]))
            time.sleep(0.002)
        time.sleep(chance.uniform(0.0, 0.5))
    else:
        time.sleep(chance.uniform(0.5, _LATEST_S))


def _judge_end(run: Run, number: int, row: Row, *, is_heard: bool) -> None:
    """Whether a run that was told to stop has said so."""
    if number == signal.SIGKILL:
        return
    name, text, code = signal.Signals(number).name, run.stderr, run.process.returncode
    if not is_heard:
        row.unheard += 1
        return
    if code == 0:  # it had come to its end
        return
    row.fault("codes", int(code != 130), f"{name} ended in {code}: {text[-300:]!r}")
    last = (text.splitlines() or [""])[-1]
    row.fault("codes", int(not last.startswith("stopped") or "Traceback" in text), f"{name}: {text[-300:]!r}")


def _judge(place: Place, before: dict[Path, bytes], runs: list[Run], row: Row, *, is_killed: bool) -> None:
    """Whether each record is there, as it was, whole, and run once, and no process is left."""
    began = time.monotonic()
    while (orphans := place.processes()) and time.monotonic() - began < _GONE_S:
        time.sleep(0.01)
    row.gone_s = max(row.gone_s, time.monotonic() - began)
    row.fault("orphans", len(orphans), ", ".join(map(_command, orphans)))
    after, store = place.records(), Store(place.results)
    row.records += len(after.keys() - before.keys())
    lost, changed = before.keys() - after.keys(), [f for f in before if after.get(f, before[f]) != before[f]]
    row.fault("lost", len(lost), ", ".join(map(str, lost)))
    row.fault("changed", len(changed), ", ".join(map(str, changed)))
    for file in after:
        try:
            store.get(file)
            store.traces(file)
        except UserError as error:
            row.fault("broken", 1, str(error))
    finished = [title for run in runs for title in _FINISHED.findall(run.stderr)]
    new = sum(map(_is_round, after.keys() - before.keys()))
    failed = [line for run in runs for line in run.stderr.splitlines() if " failed " in line]
    row.fault("failed", len(failed), "; ".join(failed))
    row.fault("doubled", max(0, len(finished) - new), f"{len(finished)} rounds run for {new} records: {finished}")
    silent = new - len(finished)  # a killed run may not have come to say that it had recorded a round
    row.fault("doubled", int(silent > int(is_killed)), f"{new} records of {len(finished)} rounds: {finished}")


def _finish(place: Place, row: Row) -> None:
    """Run what is missing, and look at what is left beside the records."""
    before = place.records()
    run = place.start()
    code = run.process.wait(_MOST_S)
    row.fault("codes", int(code != 0), f"the last run ended with {code}: {run.stderr[-300:]!r}")
    _judge(place, before, [run], row, is_killed=False)
    row.fault("lost", int(not place.is_complete()), "the last run did not complete the suite")
    left = [f for f in place.folder.rglob("*") if f.suffix in (".part", ".new", ".work")]
    left += [f for name in ("scratch", "servers") for f in place.cache.glob(f"{name}/*")]
    row.fault("left", len(left), ", ".join(map(str, left)))


def _is_round(file: Path) -> bool:
    """Whether it is a round's record, and not an artifact's."""
    return "artifacts" not in file.parts


def _hears(pid: int, number: int) -> bool:
    """Whether the process has a handler for the signal: it has one a moment after it began to run Python."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    caught = next((line.split()[1] for line in lines if line.startswith("SigCgt")), "0")
    hears_all = int(caught, 16) >> (signal.SIGHUP - 1) & 1  # set last, and by nobody else
    return bool(hears_all and int(caught, 16) >> (number - 1) & 1)


def _children(pid: int, word: bytes) -> Iterator[int]:
    """Children whose command has the word."""
    try:
        children = [file.read_text().split() for file in Path(f"/proc/{pid}/task").glob("*/children")]  # of each thread
        for child in itertools.chain(*children):
            if word in Path(f"/proc/{child}/cmdline").read_bytes():
                yield int(child)
    except OSError:  # gone
        return


def _command(pid: int) -> str:
    try:
        return " ".join(psutil.Process(pid).cmdline())[-120:]
    except psutil.Error:
        return str(pid)


def _print(rows: list[Row], seconds: float) -> None:
    heads = ("load", "moment", "kills", "unheard", "records", *_FAULTS, "gone s")
    lines = [heads, *(_cells(row) for row in rows)]
    widths = [max(len(str(line[k])) for line in lines) for k in range(len(heads))]
    for line in lines:
        cells = [
            f"{cell:<{w}}" if k < 2 else f"{cell:>{w}}" for k, (cell, w) in enumerate(zip(line, widths, strict=True))
        ]
        print("  ".join(cells))
    print(f"\n{sum(row.kills for row in rows)} kills in {seconds:.0f} s")
    for note in (note for row in rows for note in row.notes):
        print(note)


def _cells(row: Row) -> tuple[str, ...]:
    faults = (str(row.faults[name]) for name in _FAULTS)
    return (row.load, row.moment, str(row.kills), str(row.unheard), str(row.records), *faults, f"{row.gone_s:.2f}")


if __name__ == "__main__":
    sys.exit(main())
