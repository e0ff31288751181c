"""The options of speculation, and its counters."""

from __future__ import annotations

import pytest

from bench.contract import speculation
from bench.contract.speculation import SpeculationOptions


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"speculative_method": "draft"}, "method draft needs a draft, a recipe of the suite or a model"),
        ({"speculative_method": "eagle"}, "method eagle needs a draft"),
        ({"speculative_method": "ngram", "speculative_draft": "x"}, "method ngram has no draft: leave it out"),
        ({"speculative_method": "ngram", "speculative_tokens": 0}, "tokens starts at 1, got 0"),
        ({"speculative_method": "ngram", "speculative_match": -1}, "match starts at 1, got -1"),
        ({"speculative_tokens": 8}, r"needs a method, as speculative: \{method: ngram\}"),
        ({"speculative_draft": "x"}, "needs a method"),
    ],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, object], sentence: str) -> None:
    """One sentence that says what to do."""
    with pytest.raises(ValueError, match=sentence):
        SpeculationOptions(**options)  # type: ignore[arg-type]


def test_an_engine_without_speculation_is_the_one_with_it_less_its_options() -> None:
    """What is left of the options names the plain engine's."""
    options = {"threads": 1, "speculative_method": "ngram", "speculative_tokens": 4, "speculative_draft": ""}

    assert speculation.method_of(options) == "ngram"
    assert speculation.without(options) == {"threads": 1}
    assert speculation.method_of({"threads": 1}) == "off"
    assert not SpeculationOptions().speculates


def test_counters_are_sums_and_a_histogram() -> None:
    """Of three drafts one was accepted whole, one in part and one not at all."""
    counts = speculation.counters([(4, 4), (4, 1), (2, 0)], generated_tokens=20)

    assert counts == {
        "drafts": 3,
        "draft_tokens": 10,
        "accepted_tokens": 5,
        "generated_tokens": 20,
        "accepted_histogram": [1, 1, 0, 0, 1],
    }
    assert speculation.counters([], 7)["accepted_histogram"] == [0]
