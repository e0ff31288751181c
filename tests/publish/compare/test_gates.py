"""Gates on a comparison: broken only where the difference is beyond noise, "cannot tell" where rounds cannot."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from bench.contract.errors import UserError
from bench.contract.record import Result
from bench.publish.compare import gates
from bench.publish.compare.report import markdown, page
from tests.conftest import Command
from tests.publish.compare.test_compare import LOADS, compared, rounds, stored
from tests.publish.tables.test_scores import _answered, _answers

_STEADY = [1.00, 1.01, 0.99, 1.00, 1.02]


def _verdicts(a: Sequence[Result], b: Sequence[Result], *texts: str) -> list[str]:
    judgements = gates.judge([gates.parse(text) for text in texts], compared(a, b))
    return [judgement.verdict for judgement in judgements]


def test_a_slowdown_beyond_limit_and_noise_breaks_the_gate() -> None:
    """A tenth slower in five steady rounds: broken at 5 %, kept at 15 %."""
    slower = [value * 1.1 for value in _STEADY]

    assert _verdicts(rounds("a", _STEADY), rounds("b", slower), "tpot_s > 1.05", "tpot_s > 1.15") == ["broken", "kept"]
    assert _verdicts(rounds("a", slower), rounds("b", _STEADY), "tpot_s > 1.05", "tpot_s < 0.95") == ["kept", "broken"]


def test_what_the_rounds_cannot_tell_breaks_nothing() -> None:
    """Beyond the limit, but within what rounds of one cell differ by; and a single round, whose noise nobody knows."""
    loud = [1.0, 1.6, 0.7]

    assert _verdicts(rounds("a", loud), rounds("b", [1.2, 0.9, 1.9]), "tpot_s > 1.05") == ["cannot tell"]
    assert _verdicts(rounds("a", [1.0]), rounds("b", [1.5]), "tpot_s > 1.05") == ["cannot tell"]


def test_two_hundred_comparisons_of_like_with_like_break_almost_none() -> None:
    """Rounds of one distribution, 5 % apart, at a limit of nothing at all: of 200 at most 2 % break."""
    noise = random.Random(7)  # noqa: S311  (reproducible, not secret)
    broken = 0
    for _ in range(200):
        a, b = ([noise.lognormvariate(0, 0.05) for _ in range(5)] for _ in range(2))
        broken += _verdicts(rounds("a", a), rounds("b", b), "tpot_s > 1.05") == ["broken"]

    assert broken <= 4


def test_of_an_accuracy_the_limit_is_a_difference() -> None:
    """Sixty of two hundred items lost: 0.3 below, by McNemar's exact test over the items."""
    a, b = ([_answered(name, _answers(120, lost, of=200))] for name, lost in (("a", 0), ("b", 60)))
    (judgement,) = gates.judge([gates.parse("accuracy < -0.1")], compared(a, b))

    assert judgement.metric == "accuracy_fraction"
    assert judgement.verdict == "broken"
    assert judgement.value == pytest.approx(-0.3)
    assert _verdicts(b, a, "accuracy < -0.1") == ["kept"]


@pytest.mark.parametrize("text", ["tpot_s", "tpot_s >= 1.05", "> 1.05", "tpot_s > fast", "accuracy > -0.01"])
def test_what_is_no_gate_is_one_sentence(text: str) -> None:
    with pytest.raises(UserError, match="gate"):
        gates.parse(text)


def test_a_metric_that_no_cell_has_is_refused() -> None:
    """A typo would else pass for ever."""
    with pytest.raises(UserError, match="did you mean 'tpot_s'"):
        _verdicts(rounds("a", _STEADY), rounds("b", _STEADY), "tpot > 1.05")


def test_the_command_ends_with_the_gates_verdict(command: Command, tmp_path: Path) -> None:
    """Exit code 1 where one is broken, 0 where all are kept or cannot tell, 2 for one that cannot be read."""
    a = rounds("a", _STEADY, LOADS[0]) + rounds("a", [1.0], LOADS[1])
    b = rounds("b", [value * 1.1 for value in _STEADY], LOADS[0]) + rounds("b", [1.5], LOADS[1])
    words = ["bench", "compare", "a", "b", "--results", str(stored(tmp_path, a + b))]
    done = command(*words, "--fail-if", "tpot_s > 1.05", "--format", "json")
    kept = command(*words, "--fail-if", "tpot_s > 1.6")
    unreadable = command(*words, "--fail-if", "tpot_s above 1.05")

    assert (done.returncode, kept.returncode, unreadable.returncode) == (1, 0, 2)
    assert "gates: 1 broken, 1 of which the rounds cannot tell" in done.stderr
    assert [gate["verdict"] for gate in json.loads(done.stdout)["gates"]] == ["broken", "cannot tell"]
    assert "gates: 2 kept" in kept.stdout
    assert unreadable.stderr.startswith("error: 'tpot_s above 1.05' is no gate: write METRIC > NUMBER")


def test_a_comment_has_the_gates_first_and_the_cells_folded() -> None:
    """Markdown that a pull request shows; as text the gates come last, where a terminal ends."""
    comparison = compared(rounds("a", _STEADY), rounds("b", [value * 1.1 for value in _STEADY]))
    judgements = gates.judge([gates.parse("tpot_s > 1.05")], comparison)
    comment, text = markdown(comparison, judgements), page(comparison, 120, judgements)

    assert comment.index("gates: 1 broken") < comment.index("over all cells") < comment.index("<details>")
    assert "| tpot\\_s \\> 1.05 |" in comment
    assert text.rstrip().endswith("gates: 1 broken")


@pytest.mark.slow
def test_a_planted_slowdown_of_the_fake_engine_ends_in_exit_code_1(command: Command, tmp_path: Path) -> None:
    """Ten percent more between tokens, in real time: broken; a second run as it was before is not."""
    for name, itl_s in (("base", 0.02), ("again", 0.02), ("slow", 0.022)):
        words = ("--set", f"engines.0.itl_s={itl_s}", "--set", "rounds=5", "--only", "*offline*", "-q")
        done = command("bench", "run", "configs/smoke.yaml", *words, "--results", str(tmp_path / name))
        assert done.returncode == 0, done.stderr
    gate = ("--fail-if", "tpot_s > 1.05", "--results", str(tmp_path / "base"))
    slow = command("bench", "compare", str(tmp_path / "base"), str(tmp_path / "slow"), *gate)
    again = command("bench", "compare", str(tmp_path / "base"), str(tmp_path / "again"), *gate)

    assert (again.returncode, slow.returncode) == (0, 1), slow.stdout
    assert "broken" in slow.stderr
