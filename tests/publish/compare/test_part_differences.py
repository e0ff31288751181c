"""Two selections over parts of a task's items: by position in the window, by length and depth of a prompt."""

from __future__ import annotations

import pytest

from bench.contract.record import Result
from bench.publish.compare.compare import compare
from bench.publish.compare.report import as_json, page
from bench.publish.compare.selectors import Selection
from tests.publish.tables.test_parts import by_position, retrieved

_TO = "\N{EN DASH}"


def _selection(name: str, *records: Result) -> Selection:
    return Selection(name, "recipe", f"recipe {name}", records)


def test_each_part_is_compared_by_its_own_windows_or_items() -> None:
    """Perplexity in percent of A's, the answers' likelihood in nats a token; the baseline has no part in it."""
    one = _selection("gptq-4", by_position("gptq-4", 3.0, 2.0), retrieved("gptq-4", "11111111", 0.5))
    two = _selection("nf4", by_position("nf4", 3.0, 2.01), retrieved("nf4", "11111111", 2.5))
    comparison = compare(one, two)
    lines = [" ".join(line.split()) for line in page(comparison, 200).splitlines()]

    start = lines.index("perplexity-stdlib-hf-512: ppl %, B against A, by tokens before")
    assert lines[start + 1] == f"cell 1{_TO}63 64{_TO}511"
    assert lines[start + 3] == "hf +0.00 ± 0.00 +1.01 ± 0.00"
    start = lines.index("retrieval-pairs-512-2048: answer nll, B against A, by depth")
    assert lines[start + 1] == "cell length 0 % 50 % all"
    assert lines[start + 3 : start + 5] == [f"hf {length} +0.5 ± 0 +0.5 ± 0 +0.5 ± 0" for length in (512, 2048)]
    parts = as_json(comparison)["parts"]
    assert len(parts) == 2 + 6
    assert parts[1]["labels"] == {"tokens before": f"64{_TO}511"}
    assert parts[1]["change"] == pytest.approx(0.01005, abs=1e-5)
    assert (parts[1]["metric"], parts[1]["what"]) == ("perplexity", "perplexity-stdlib-hf-512")


def test_other_items_have_no_parts_to_compare() -> None:
    """And on a narrow page nothing else is lost."""
    plain = by_position("gptq-4", 3.0, 2.0)
    other = by_position("nf4", 3.0, 2.0)
    other.facts["sha256"] = "another text"  # type: ignore[index]  # a dict of this test's own
    comparison = compare(_selection("gptq-4", plain), _selection("nf4", other))

    assert not comparison.parts
    assert "B against A" not in page(comparison, 80)
    same = compare(_selection("gptq-4", plain), _selection("nf4", by_position("nf4", 3.0, 2.01)))
    assert "+1.01 ± 0.00" in page(same, 80)
