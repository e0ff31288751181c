"""What engines share of multiple choice, beside the scores themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.contract import phase
from bench.contract.hooks import ChoiceScore, Question
from bench.engines import _choices


def test_scored_choices_are_told_to_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each batch's as they are scored, though no question's scores are given out before all are."""
    monkeypatch.setenv(phase.VARIABLE, str(tmp_path / "phases"))
    questions = [Question((1, 2), ((3,), (4,))), Question((5,), ((6, 7),))]
    batches = [_choices.rows(index, question, 1) for index, question in enumerate(questions)]
    scores = _choices.scores(questions, batches, lambda rows: [[ChoiceScore(-1.0, is_greedy=False)] for _ in rows])

    assert [(number, len(of)) for number, of in scores] == [(0, 2), (1, 1)]
    assert (tmp_path / "phases").read_text().splitlines() == [f"scoring: {n} of 3 choices" for n in (0, 3)]
