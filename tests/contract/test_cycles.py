from __future__ import annotations

import gc

import pytest

from bench.contract.cycles import no_gc


def test_cycles_are_searched_for_again_once_the_outermost_work_is_done() -> None:
    """A table is printed within what paused it, and an error ends the pause too."""

    @no_gc()
    def fails() -> None:
        with no_gc():
            pass
        assert not gc.isenabled()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()

    assert gc.isenabled()
