"""Answers packed for a record, and where two engines' answers part."""

from __future__ import annotations

import base64
import zlib

import pytest

from bench.contract.speculation import answers
from bench.contract.speculation.answers import Answer, Differences


def test_answers_come_back_as_they_were() -> None:
    """Token ids and texts of any script, in fewer bytes where they repeat."""
    given: dict[str, Answer] = {"1": [5, 6, 7], "2": "naïve 語 \x00\n", "3": ""}

    assert answers.unpack(answers.pack(given)) == given
    assert len(answers.pack({str(n): "the same words" for n in range(200)})) < 2000


@pytest.mark.parametrize(
    "packed", ["", "no", base64.b64encode(b"no").decode(), base64.b64encode(zlib.compress(b"[1]")).decode()]
)
def test_a_damaged_record_is_refused(packed: str) -> None:
    """Whatever is wrong with it, by one class of error."""
    with pytest.raises(ValueError, match="what is recorded as answers is damaged"):
        answers.unpack(packed)


def test_differences_are_counted_over_the_prompts_of_both() -> None:
    """The first of them by its place; an answer that ends early differs where it ends."""
    without = {"a": [1, 2, 3], "b": [1, 2, 3], "c": [1, 2, 3], "d": [9]}

    assert answers.differences({"a": [1, 2, 3], "b": [1, 2, 4], "c": [1, 2]}, without) == Differences(3, 2, 2, "token")
    assert answers.differences(without, without) == Differences(4, 0, 0, "token")
    assert answers.differences({"a": "xy"}, {"a": "xz"}) == Differences(1, 1, 1, "character")
    assert answers.differences({"a": "xy"}, without) is None
    assert answers.differences({"z": [1]}, without) is None
