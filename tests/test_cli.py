"""What the command line prints for a program: one JSON text on stdout, and nothing else there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Command

_SUITE = """
model: models/demo
recipes: [as-is]
engines: [fake, {name: fake, label: dies, fail: exception}, {name: fake, label: picky, only_batch: 3}]
workloads: [{batch: 1, prompt_tokens: 4, new_tokens: 4, repeats: 2}]
devices: [cpu]
rounds: 2
settle_s: 0
"""
_ENDS = "as-is/{}/offline-b1-p4-n4"


@pytest.fixture
def suite(tmp_path: Path) -> str:
    file = tmp_path / "mine.yaml"
    file.write_text(_SUITE)
    return str(file)


def test_a_run_is_one_json_text(command: Command, tmp_path: Path, suite: str) -> None:
    """The rounds by status, the time, where the records are, and the table as `bench table` gives it."""
    ran = command("bench", "run", suite, "--json", "--quiet")
    document = json.loads(ran.stdout)
    again = json.loads(command("bench", "run", suite, "--json").stdout)
    table = json.loads(command("bench", "table", suite, "--format", "json").stdout)

    assert document["rounds"] == {"ok": 2, "failed": 2, "unsupported": 2, "kept": 0}
    assert again["rounds"] == {"ok": 0, "failed": 0, "unsupported": 0, "kept": 6}
    assert document["time_s"] > 0
    (folder,) = document["records"]
    assert len(list(Path(folder).rglob("serving/**/r*.json"))) == 6
    assert Path(folder).is_relative_to(tmp_path / "results")
    assert document["table"] == table
    assert len(ran.stderr.splitlines()) == 3  # two failures, and how to run them again
    assert ran.stderr.splitlines()[-1].endswith(f"--retry failed. Logs: {tmp_path / 'cache' / 'logs'}")


def test_json_and_another_format_are_refused(command: Command, suite: str) -> None:
    """Before anything runs, in one sentence."""
    done = command("bench", "run", suite, "--json", "--format", "md")

    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == ("error: --json prints the table as JSON and --format md does not: use one of them\n")


def test_a_plan_is_a_list_of_cells(command: Command, suite: str) -> None:
    """Each with what is to run or why not; `run --dry-run --json` says the same."""
    before = json.loads(command("bench", "plan", suite, "--json").stdout)
    dry = json.loads(command("bench", "run", suite, "--dry-run", "--json").stdout)
    command("bench", "run", suite)
    after = json.loads(command("bench", "plan", suite, "--json").stdout)
    retried = json.loads(command("bench", "plan", suite, "--json", "--retry", "failed").stdout)

    assert before == dry
    assert before["suite"] == "mine"
    assert before["not_paired"] == []
    assert [_state(cell) for cell in before["cells"]] == [
        (_ENDS.format("fake"), "to run", 2, 2),
        (_ENDS.format("dies"), "to run", 2, 2),
        (_ENDS.format("picky"), "unsupported", 2, 0),
    ]
    assert "batch 3" in before["cells"][2]["reason"]
    assert before["cells"][0]["device"] == "cpu"
    assert [cell["status"] for cell in after["cells"]] == ["recorded", "recorded", "unsupported"]
    assert [cell["status"] for cell in retried["cells"]] == ["recorded", "to run", "unsupported"]


def _state(cell: dict[str, Any]) -> tuple[str, str, int, int]:
    title = cell["title"].partition("/")[2]
    return title, cell["status"], cell["rounds"], cell["to_run"]


@pytest.mark.parametrize("what", ["engines", "methods", "tasks", "suites", "recipes", "shapes", "architectures"])
def test_every_list_is_also_data(command: Command, what: str) -> None:
    """As many names as the lines have, each with what is known of it."""
    entries = json.loads(command("bench", "list", what, "--json").stdout)
    lines = command("bench", "list", what).stdout.splitlines()

    assert [each["name"] for each in entries] == [line.split()[0] for line in lines if line[0] != " "]
    assert all(each.keys() - {"name"} for each in entries)
    if what == "engines":
        (fake,) = [each for each in entries if each["name"] == "fake"]
        assert fake["options"]["itl_s"] == 0.002


def test_environments_and_the_machine_are_also_data(command: Command) -> None:
    """Their states by name, and the devices as records describe them."""
    states = json.loads(command("bench", "envs", "list", "--json").stdout)
    lines = command("bench", "envs", "list").stdout.splitlines()
    machine = json.loads(command("bench", "doctor", "--json").stdout)

    assert [each["name"] for each in states] == [line.partition(":")[0] for line in lines]
    assert {each["state"] for each in states} <= {"ready", "not built", "unusable"}
    assert machine["environments"] == states
    assert machine["devices"][0]["slug"]
    assert machine["said"]["Python"]


def test_help_says_what_the_exit_codes_mean(command: Command) -> None:
    """A script that runs suites needs no more than that."""
    help_text = " ".join(command("bench", "run", "--help").stdout.split())

    assert "0 the suite ran to its end" in help_text
    assert "130 interrupted" in help_text
