"""`python -m eval` and `python -m eval compare` on the fake engine, as a user starts them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import ROOT, Command

_SHORT = ("--engine", "fake", "--corpus", "stdlib", "--context", "64")


def test_a_measurement_is_a_table(command: Command) -> None:
    """What was measured where, then a metric a line with its unit; --json is the record."""
    words = ("models/demo", "--task", "perplexity", *_SHORT, "--tokens", "512")
    outcome, whole = command("eval", *words), command("eval", *words, "--json")

    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stdout.startswith("perplexity-stdlib-hf-64-512t of demo in fake on ")
    lines = [line.split() for line in outcome.stdout.splitlines() if line]
    assert ["scored", "tokens", "504"] in lines
    assert json.loads(whole.stdout)["metrics"]["scored_tokens"] == 504


@pytest.mark.slow
def test_two_artifacts_are_compared_on_the_same_items(command: Command, tmp_path: Path) -> None:
    """Perplexity: both figures and the paired change. Divergence: the other against the base."""
    copy = tmp_path / "copy"
    outcome = command("quantize", "models/demo", "--recipe", "fp32", "-o", str(copy))
    assert outcome.returncode == 0, outcome.stderr
    pair = ("compare", "models/demo", str(copy))
    perplexity = command("eval", *pair, "--task", "perplexity", *_SHORT, "--tokens", "512")
    divergence = command("eval", *pair, "--task", "divergence", *_SHORT, "--tokens", "512")

    assert perplexity.returncode == divergence.returncode == 0, perplexity.stderr + divergence.stderr
    assert "copy in fake against models/demo in fake" in perplexity.stdout
    assert "change of perplexity" in perplexity.stdout
    assert "+0 %" in perplexity.stdout
    assert "kl mean" in divergence.stdout
    assert "top1 agreement" in divergence.stdout


@pytest.mark.slow
def test_parts_of_the_items_are_tables_below(command: Command) -> None:
    """A curve by position, a matrix by length and depth; two artifacts have the changes of each part as well."""
    words = ("--task", "retrieval", "--engine", "fake", "--lengths", "200", "--depths", "0,1", "--items", "2")
    matrix = command("eval", "models/demo", *words)
    pair = command(
        "eval",
        "compare",
        "models/demo",
        "models/demo",
        "--task",
        "perplexity",
        *_SHORT,
        "--by-position",
        "--tokens",
        "512",
    )

    assert matrix.returncode == pair.returncode == 0, matrix.stderr + pair.stderr
    assert "pairs-200-d0-100-2items: exact match % ↑ by depth" in matrix.stdout
    assert ["recipe", "engine", "length", "0", "%", "100", "%", "all"] in [
        line.split() for line in matrix.stdout.splitlines()
    ]
    assert "vs baseline % ↓ by tokens before" in pair.stdout
    assert "+0.00 ± 0.00" in pair.stdout


def test_a_comparison_as_data_is_printed_without_secrets(command: Command) -> None:
    """Both records and the change; a secret variable's value is its name."""
    words = ("compare", "models/demo", "models/demo", "--task", "perplexity", *_SHORT, "--tokens", "512", "--json")
    outcome = command("eval", *words, DEMO_KEY="models/demo")

    assert outcome.returncode == 0, outcome.stderr
    document = json.loads(outcome.stdout)
    assert document["other"]["cell"]["model"]["source"] == "<DEMO_KEY>"
    assert "models/demo" not in outcome.stdout


def test_what_cannot_be_measured_is_one_sentence(command: Command, tmp_path: Path) -> None:
    """A divergence of one artifact, a folder that is not there, a task's option that does not exist."""
    runs = [
        command("eval", "models/demo", "--task", "divergence", *_SHORT),
        command("eval", "compare", "models/demo", str(tmp_path / "gone"), "--task", "perplexity", *_SHORT),
        command("eval", "models/demo", "--task", "lm_eval", "--num-fewshots", "5"),
    ]

    assert [done.returncode for done in runs] == [2, 2, 2]
    assert "python -m eval compare BASE OTHER --task divergence" in runs[0].stderr
    assert "gone does not exist" in runs[1].stderr
    assert "did you mean 'num_fewshot'" in runs[2].stderr
    assert not [done for done in runs if len(done.stderr.strip().splitlines()) != 1]
    assert "compare" in command("eval", "--help").stdout
    assert str(ROOT) not in command("eval", "compare", "--help").stdout
