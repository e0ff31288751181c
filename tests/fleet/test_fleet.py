"""Runs on a Ray cluster of several nodes on this machine: the demo model on the fake engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench.store import Store
from tests.conftest import ROOT

pytest.importorskip("ray", reason="Ray is not installed: pip install 'llm-bench[fleet]'")
pytestmark = pytest.mark.slow

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
        where = ["--results", str(tmp_path / results)] if words[0] == "run" else []
        return subprocess.run(
            [sys.executable, "-m", "bench", *words, "--on", "ray", "--ray-address", self.address, *where],
            cwd=ROOT,
            env={**os.environ, "LLM_BENCH_CACHE": str(tmp_path / "cache"), "COLUMNS": "120"},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """Two nodes with all CPUs of this machine."""
    folder = tmp_path_factory.mktemp("nodes")
    argv = [sys.executable, str(Path(__file__).with_name("local_cluster.py")), str(folder), "a", "b"]
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


def _here(tmp_path: Path, *words: str, results: str) -> subprocess.CompletedProcess[str]:
    """The command without a cluster."""
    return subprocess.run(
        [sys.executable, "-m", "bench", *words, "--results", str(tmp_path / results)],
        cwd=ROOT,
        env={**os.environ, "LLM_BENCH_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def _quality(results: Path) -> dict[str, dict[str, float]]:
    """By the path of each task's record what was measured, but for the time it took."""
    timed = ("_s", "_per_s", "_bytes")
    found = Store(results)
    return {
        found.name(record): {k: v for k, v in record.metrics.items() if not k.endswith(timed)}
        for record in found.all()
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


def test_an_artifact_is_made_once_and_travels(nodes: Nodes, tmp_path: Path, suite: str) -> None:
    """By the run above or this one: where both nodes have it, it is the same one, to the second that it took."""
    ran = nodes.bench(tmp_path, "run", suite)

    assert ran.returncode == 0, ran.stderr
    found = sorted(nodes.folder.glob("*/artifacts/*/artifact.json"))
    assert found
    assert len({file.read_text() for file in found}) == 1
    assert not list(nodes.folder.glob("*/artifacts/*.part"))


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
