"""What the live view shows, without a terminal: its lines at any width and height."""

from __future__ import annotations

import pytest
from rich.cells import cell_len

from bench.progress.snapshot import Activity, Finished, RoundLabel, Snapshot
from bench.progress.terminal import lines, shortened

CELL = "Qwen3-8B/gptq-w4g128/vllm/offline-b1-p128-n64"
FULL = Snapshot(
    elapsed_s=252.0,
    activities=(Activity("measuring", 12.0, RoundLabel(CELL, "cuda:0", 2, 3), 42.0, 65.0),),
    total=65,
    recorded=3,
    counts={"ok": 11, "failed": 1},
    remaining_s=1110.0,
    recent=(
        Finished("Qwen3-8B/fp16/vllm/offline-b1-p128-n64", 2, 11, "ok", 63.0, "63.1 tok/s"),
        Finished("Qwen3-8B/awq-w4g128/vllm/ppl-wikitext", 1, 12, "ok", 4.2, "ppl 9.17"),
    ),
)


def _plain(snapshot: Snapshot, width: int, height: int = 30) -> list[str]:
    return [line.plain for line in lines(snapshot, width, height)]


def test_all_of_it_in_a_wide_terminal() -> None:
    """Rounds that are over with their figures, the cell, its phase beside what is expected, the totals."""
    assert _plain(FULL, 119) == [
        "ok  1:03  63.1 tok/s  Qwen3-8B/fp16/vllm/offline-b1-p128-n64 round 2",
        "ok 4.2 s    ppl 9.17  Qwen3-8B/awq-w4g128/vllm/ppl-wikitext round 1",
        f"{CELL}, cuda:0, round 2 of 3",
        "measuring 0:12, round 0:42 of about 1:05",
        f"{'━' * 7}{'─' * 33} 12 of 65 rounds done",
        "11 ok, 1 failed, 3 recorded before, 4:12 so far, about 18:30 left",
    ]


@pytest.mark.parametrize("width", [119, 79, 59, 39, 20, 7, 1])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    """Names of two-column letters too."""
    wide = RoundLabel("模型" * 30, "cpu", 1, 1)
    for snapshot in (FULL, Snapshot(1.0, (Activity("環境: " + "x" * 200), Activity(round=wide)), 5)):
        assert max(map(cell_len, _plain(snapshot, width))) <= width


@pytest.mark.parametrize("height", [30, 6, 5, 3, 1])
def test_no_more_lines_than_the_terminal_has(height: int) -> None:
    """The rounds that are over make room first, the oldest before the others."""
    drawn_lines = _plain(FULL, 119, height)

    assert len(drawn_lines) == min(height, 6)
    assert [line.split(",")[0] for line in drawn_lines if line.startswith("Qwen3")] == [CELL]
    over = [line.split()[-3].split("/")[-1] for line in drawn_lines if line.startswith("ok")]
    assert over == ["offline-b1-p128-n64", "ppl-wikitext"][6 - max(4, min(height, 6)) :]


def test_a_narrow_terminal_shows_both_ends_of_a_name_and_all_totals() -> None:
    """At 40 columns the model and the load are still told."""
    drawn_lines = _plain(FULL, 39)

    assert "Qwen3-8B/gptq-w4g12…offline-b1-p128-n64" in drawn_lines
    assert {"11 ok", "1 failed", "3 recorded before", "4:12 so far", "about 18:30 left"} <= {
        part for line in drawn_lines for part in line.split(", ")
    }


def test_where_nothing_was_foretold_nothing_is_said() -> None:
    """No expected time, no time left: the view says so."""
    snapshot = Snapshot(9.0, (Activity("loading", 2.0, RoundLabel(CELL, "cpu", 1, 1), 3.0),), total=2)
    drawn_lines = _plain(snapshot, 119)

    assert "loading 0:02, round 0:03" in drawn_lines
    assert "0:09 so far, time left not known yet" in drawn_lines


def test_work_that_goes_on_at_the_same_time_has_lines_of_its_own() -> None:
    """A round that is scored and an environment that is built beside it, each with its time."""
    scored = Activity("scoring", 3.0, RoundLabel("m/nf4/hf/ppl", "cpu", 1, 1, at_once=2), 8.0)
    drawn_lines = _plain(Snapshot(9.0, (scored, Activity("environment vllm: Collecting torch", 6.0)), total=2), 119)

    assert drawn_lines[:3] == [
        "m/nf4/hf/ppl, cpu, round 1 of 1",
        "scoring 0:03, round 0:08",
        "environment vllm: Collecting torch, 0:06",
    ]


def test_work_without_rounds_has_no_bar() -> None:
    """An environment that is built, a model that is compressed: what is done, and for how long."""
    assert _plain(Snapshot(75.0, (Activity("gptq: layer 3 of 32", 5.0),)), 119) == ["gptq: layer 3 of 32, 1:15"]


def test_a_terminal_without_unicode_gets_ascii() -> None:
    """The bar and the mark of what is left out."""
    drawn_lines = [line.plain for line in lines(FULL, 39, 30, ("#", "-", "~"))]

    assert all(line.isascii() for line in drawn_lines)
    assert any(line.startswith("###") for line in drawn_lines)


def test_a_name_is_cut_in_its_middle() -> None:
    """Both ends stay, and no more columns are taken than there are."""
    assert shortened("abcdefghij", 10, "…") == "abcdefghij"
    assert shortened("abcdefghij", 7, "…") == "abc…hij"
    assert shortened("abcdefghij", 1, "…") == "a"
