"""Runs on a Ray cluster of several nodes on this machine: the demo model on the fake engine.

The nodes are few, so the tests are in order: what takes a node away comes after what needs it.
"""

from __future__ import annotations

import contextlib
import filecmp
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from bench.store import Store
from tests.conftest import ROOT, json_of

pytestmark = [pytest.mark.slow, pytest.mark.needs_extra("fleet", "ray")]

_SUITE = """
model: models/demo
recipes: [as-is, fp32]
engines: [fake]
workloads: [{batch: 1, prompt_tokens: 4, new_tokens: 4, repeats: 2}]
tasks:
  - {task: perplexity, corpus: stdlib, context: 64, tokens: 128}
  - {task: divergence, corpus: stdlib, tokens: 512}
devices: [cpu]
rounds: 2
settle_s: 0
"""

_LONG = """
model: models/demo
recipes: [as-is]
engines: [{name: fake, itl_s: 0.1}]
workloads: [{batch: 1, prompt_tokens: 4, new_tokens: 8, repeats: 2}]
devices: [cpu]
rounds: 4
settle_s: 0
"""


@dataclass(frozen=True)
class Nodes:
    """A cluster: its address, the folder with a cache for each node, and the program that is told what to change."""

    address: str
    folder: Path
    program: subprocess.Popen[str]

    def tell(self, *words: str) -> None:
        assert self.program.stdin is not None
        assert self.program.stdout is not None
        self.program.stdin.write(" ".join(words) + "\n")
        self.program.stdin.flush()
        assert self.program.stdout.readline().split()[0] == words[0]

    def bench(self, tmp_path: Path, *words: str, results: str = "results") -> subprocess.CompletedProcess[str]:
        """`python -m bench WORDS --on ray` as a driver with a cache of its own."""
        with self.started(tmp_path, *words, results=results) as driver:
            out, err = driver.communicate(timeout=300)
        return subprocess.CompletedProcess(driver.args, driver.returncode, out, err)

    def started(self, tmp_path: Path, *words: str, results: str = "results") -> subprocess.Popen[str]:
        """The same, and not waited for."""
        where = ["--results", str(tmp_path / results)] if words[0] == "run" else []
        argv = [sys.executable, "-m", "bench", *words, "--on", "ray", "--ray-address", self.address, *where]
        variables = {**os.environ, "LLM_BENCH_CACHE": str(tmp_path / "cache"), "COLUMNS": "120"}
        return subprocess.Popen(argv, cwd=ROOT, env=variables, stdout=-1, stderr=-1, text=True)

    def processes(self, name: str, node: str = "") -> list[psutil.Process]:
        """Those of the nodes, or of one, whose command line has the name; Ray's workers by the node that began them."""
        matching = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if name in " ".join(process.cmdline()):
                    its = (process.parent() if name.startswith("ray::") else process) or process
                    cache = its.environ().get("LLM_BENCH_CACHE", "")
                    matching += [process] if cache.startswith(str(self.folder / node)) else []
        return matching


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """Two nodes with all CPUs of this machine; b is the cluster's head, and a, which comes first by its name, times."""
    folder = tmp_path_factory.mktemp("nodes")
    argv = [sys.executable, str(Path(__file__).with_name("local_cluster.py")), str(folder), "b", "a"]
    log = (folder / "cluster.log").open("w")
    with log, subprocess.Popen(argv, cwd=ROOT, stdin=-1, stdout=-1, stderr=log, text=True) as program:
        assert program.stdout is not None
        address = program.stdout.readline().strip()
        try:
            assert address, (folder / "cluster.log").read_text()
            yield Nodes(address, folder, program)
        finally:
            assert program.stdin is not None
            program.stdin.close()  # which ends it
            program.wait(timeout=60)


@pytest.fixture
def suite(tmp_path: Path) -> str:
    file = tmp_path / "mine.yaml"
    file.write_text(_SUITE)
    return str(file)


@pytest.fixture
def long_suite(tmp_path: Path) -> str:
    """Four timed rounds of seconds, one after another."""
    file = tmp_path / "long.yaml"
    file.write_text(_LONG)
    return str(file)


def _here(tmp_path: Path, *words: str, results: str, cpus: int = 0) -> subprocess.CompletedProcess[str]:
    """The command without a cluster, on all CPUs of this machine or the first so many."""
    usable = sorted(os.sched_getaffinity(0))
    bound = f"import os, sys; os.sched_setaffinity(0, {usable[:cpus] if cpus else usable})"
    program = f"{bound}; from bench.__main__ import main; main()"
    return subprocess.run(
        [sys.executable, "-c", program, *words, "--results", str(tmp_path / results)],
        cwd=ROOT,
        env={**os.environ, "LLM_BENCH_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def _read_until(driver: subprocess.Popen[str], pattern: str) -> str:
    """The lines of its stderr up to the first that matches."""
    assert driver.stderr is not None
    lines = ""
    while not re.search(pattern, lines):
        line = driver.stderr.readline()
        assert line, lines
        lines += line
    return lines


def _ran(lines: str) -> list[str]:
    """The rounds that a driver has seen end well."""
    return re.findall(r"\] \S+ (\S+ round \d+) ok", lines)


def _quality(results: Path) -> dict[str, dict[str, float]]:
    """By the path of each task's record what was measured, but for the time it took."""
    timed = ("_s", "_per_s", "_bytes")
    store = Store(results)
    return {
        store.name(record): {k: v for k, v in record.metrics.items() if not k.endswith(timed)}
        for record in store.all()
        if record.cell.task is not None
    }


def test_a_suite_ends_as_on_one_machine(nodes: Nodes, tmp_path: Path, suite: str) -> None:
    """The same records at the same places, so that a run without Ray finds nothing to do; and the same quality."""
    ran = nodes.bench(tmp_path, "run", suite)

    assert ran.returncode == 0, ran.stderr
    assert "8 ok" in ran.stderr, ran.stderr
    again = _here(tmp_path, "run", suite, results="results")
    assert "nothing left to run; 8 recorded before" in again.stderr, again.stderr
    alone = _here(tmp_path, "run", suite, results="alone")
    assert alone.returncode == 0, alone.stderr
    assert _quality(tmp_path / "results") == _quality(tmp_path / "alone")
    assert sorted(Store(tmp_path / "results").name(r) for r in Store(tmp_path / "results").all()) == sorted(
        Store(tmp_path / "alone").name(r) for r in Store(tmp_path / "alone").all()
    )


def test_a_filter_that_matches_nothing_is_refused(nodes: Nodes, tmp_path: Path, suite: str) -> None:
    """As on one machine: a misspelt recipe is no run that has nothing left to do."""
    ran = nodes.bench(tmp_path, "run", suite, "--only", "fp23")

    assert ran.returncode == 2, ran.stderr
    assert "no cell matches --only fp23" in ran.stderr


def test_a_folder_travels_in_bounded_memory(nodes: Nodes) -> None:
    """Of 300 MiB, nearly four times the object store, neither node ever holds more than some pieces."""
    folder = nodes.folder / "a" / "references" / "big"
    folder.mkdir(parents=True)
    block = os.urandom(2**20)
    with (folder / "file.bin").open("wb") as file:
        for _ in range(300):
            file.write(block)
    (folder / "reference.json").write_text(json.dumps({"digest": "big", "files": {"file.bin": 300 * 2**20}}))
    fetched = json_of(sys.executable, "fleet/fetching.py", nodes.address, "big", "a", "b")

    assert fetched["is_there"]
    assert fetched["grown_bytes"] < 200 * 2**20
    copy = nodes.folder / "b" / "references" / "big"
    assert filecmp.cmp(copy / "file.bin", folder / "file.bin", shallow=False)
    for each in (folder, copy):
        shutil.rmtree(each)


def test_the_doctor_tells_of_each_node(nodes: Nodes, tmp_path: Path) -> None:
    """Its devices, versions, environments, disk and clock."""
    checked = nodes.bench(tmp_path, "doctor", "--json")

    assert checked.returncode == 0, checked.stderr
    each = json.loads(checked.stdout)
    assert [one["node"]["name"] for one in each] == ["a", "b"]
    assert all(abs(one["skew_s"]) <= one["within_s"] + 0.5 for one in each)
    assert all(one["report"]["versions"]["Python"] for one in each)


def test_nodes_of_other_versions_are_refused_with_both_named(nodes: Nodes, tmp_path: Path, suite: str) -> None:
    """Their records would have other digests, or other numbers under the same."""
    other = tmp_path / "other" / "tokenizers-0.0.1.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: tokenizers\nVersion: 0.0.1\n")
    nodes.tell("add", "c", f"PYTHONPATH={other.parent}")
    ran = nodes.bench(tmp_path, "run", suite)
    nodes.tell("kill", "c")

    assert ran.returncode == 2, ran.stderr
    assert "node c has tokenizers 0.0.1 (here " in ran.stderr
    assert "Traceback" not in ran.stderr


def test_what_a_failed_round_printed_comes_home(nodes: Nodes, tmp_path: Path) -> None:
    """The record is the one that this machine would have written, and the log is in the driver's cache."""
    file = tmp_path / "dies.yaml"
    file.write_text(_LONG.replace("itl_s: 0.1", "fail: exit").replace("rounds: 4", "rounds: 1"))
    ran = nodes.bench(tmp_path, "run", str(file))

    assert ran.returncode == 0, ran.stderr
    assert "1 failed" in ran.stderr
    (record,) = [record for record in Store(tmp_path / "results").all() if record.cell.workload is not None]
    assert record.status == "failed"
    assert "left no answer" in record.reason
    assert [file.name.endswith("-a-worker.log") for file in (tmp_path / "cache" / "logs" / "fleet").iterdir()] == [True]


def test_each_kind_of_device_has_its_folder_and_shares_artifacts(nodes: Nodes, tmp_path: Path, suite: str) -> None:
    """A node with one CPU is another kind: a run on one CPU finds all of its records, and the artifact came to it."""
    nodes.tell("add", "s:1")
    ran = nodes.bench(tmp_path, "run", suite)
    holders = {file.parents[2].name for file in nodes.folder.glob("*/artifacts/*/artifact.json")}
    nodes.tell("kill", "s")

    assert ran.returncode == 0, ran.stderr
    assert "16 ok" in ran.stderr, ran.stderr
    for cpus in (0, 1):
        again = _here(tmp_path, "run", suite, results="results", cpus=cpus)
        assert "nothing left to run; 8 recorded before" in again.stderr, again.stderr
    assert "s" in holders
    assert len({file.read_text() for file in nodes.folder.glob("*/artifacts/*/artifact.json")}) == 1
    assert not list(nodes.folder.glob("*/artifacts/*.part"))


def test_a_killed_process_is_started_again_and_nothing_lost(nodes: Nodes, tmp_path: Path, long_suite: str) -> None:
    """What it did runs again, on the same device, and its own worker ends with it."""
    driver = nodes.started(tmp_path, "run", long_suite)
    head = _read_until(driver, "round 1 ok")
    (actor,) = nodes.processes("ray::Device", "a")
    actor.kill()
    err = head + driver.communicate(timeout=120)[1]

    assert driver.returncode == 0, err
    assert len(_ran(err)) == len(set(_ran(err))) == 4, err
    assert "the process on a ended" in err
    assert "from now on" not in err


def test_two_runs_at_once_share_the_work_by_turns(nodes: Nodes, tmp_path: Path, long_suite: str) -> None:
    """The second waits for the device, which is the cluster's, and then has nothing to run."""
    first = nodes.started(tmp_path, "run", long_suite)
    head = _read_until(first, "planning on")
    second = nodes.started(tmp_path, "run", long_suite)
    errors = [head + first.communicate(timeout=120)[1], second.communicate(timeout=120)[1]]

    assert [first.returncode, second.returncode] == [0, 0], errors
    assert [len(_ran(err)) for err in errors] == [4, 0], errors
    assert "another run measures on" in errors[1]
    assert "nothing left to run; 4 recorded before" in errors[1]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_stopped_driver_leaves_nothing_and_the_command_goes_on(
    nodes: Nodes, tmp_path: Path, long_suite: str, number: signal.Signals, code: int
) -> None:
    """Its records are kept, its actors and their workers end, and what is left runs when it is run again."""
    driver = nodes.started(tmp_path, "run", long_suite)
    head = _read_until(driver, "round 2 ok")
    driver.send_signal(number)
    tail = driver.communicate(timeout=60)[1]
    assert driver.returncode == code, tail
    assert "Traceback" not in tail
    until = time.monotonic() + 60.0
    while nodes.processes("ray::Device") or nodes.processes("bench.process.worker_main"):
        assert time.monotonic() < until
        time.sleep(0.5)
    again = nodes.bench(tmp_path, "run", long_suite)

    assert again.returncode == 0, again.stderr
    assert sorted([*_ran(head), *_ran(again.stderr)]) == sorted(set(_ran(head) + _ran(again.stderr)))
    assert len(_ran(head) + _ran(again.stderr)) == 4, head + again.stderr


def test_a_lost_node_is_replaced_by_one_that_joins(nodes: Nodes, tmp_path: Path, long_suite: str) -> None:
    """The device that times dies with its node: another of its kind goes on, and the new node takes part."""
    driver = nodes.started(tmp_path, "run", long_suite)
    head = _read_until(driver, "round 1 ok")
    nodes.tell("kill", "a")
    nodes.tell("add", "c")
    err = head + driver.communicate(timeout=180)[1]

    assert driver.returncode == 0, err
    assert len(_ran(err)) == len(set(_ran(err))) == 4, err
    assert "is timed on b from now on: a cpu is not here" in err
