from __future__ import annotations

import gc
import json

import pytest

from bench.cli import params


def test_data_is_printed_without_secrets(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """As text is: a secret variable's value is its name, and the rest is one JSON text."""
    monkeypatch.setenv("ACME_KEY", "sk-0123456789")

    params.output({"reason": "refused sk-0123456789", "rounds": [1, 2]})

    assert json.loads(capsys.readouterr().out) == {"reason": "refused <ACME_KEY>", "rounds": [1, 2]}


def test_cycles_are_searched_for_again_once_the_outermost_work_is_done() -> None:
    """A table is printed within what paused it, and an error ends the pause too."""

    @params.no_gc()
    def fails() -> None:
        with params.no_gc():
            pass
        assert not gc.isenabled()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()

    assert gc.isenabled()
