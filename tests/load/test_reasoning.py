"""Models that reason: the time to the answer beside the time to the first thought, in a record as in `bench load`."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path

import pytest

from bench.contract.errors import UserError
from bench.contract.record import RequestTrace
from bench.contract.workload import Closed
from bench.publish.tables import build, render
from bench.run import recompute
from bench.store import Store, attachment_of
from tests.conftest import Command
from tests.load.endpoints import Received, Response, endpoint, streamed, usage
from tests.test_store import served

_GAP_S = 0.02
_THINKS = RequestTrace(0, 0, 4, 0.0, 0.0, (0.5, 1.0, 1.5), (1, 1, 1), reasoning_tokens=2, answer_s=1.5)


def _thinks(_: Received) -> Response:
    """Four thoughts and two words, an event each, 20 ms apart."""
    return streamed(*[{"reasoning_content": "hm"}] * 4, *[{"content": "a"}] * 2, usage(6), gap_s=_GAP_S)


def test_a_load_reads_the_time_to_the_answer(command: Command) -> None:
    """The fifth token of six: four gaps after the first, as long as the load's own gaps are."""
    few = ("--model", "m", "--requests", "20", "--new-tokens", "6", "--prompt-tokens", "4", "--chat")
    with endpoint(_thinks) as running:
        done = command("bench", "load", running.url, *few, "--json")
    metrics = json.loads(done.stdout)["metrics"]

    assert metrics["answer_ttft_s"] - metrics["ttft_s"] == pytest.approx(4 * metrics["tpot_s"], rel=0.25)
    assert metrics["tpot_s"] >= _GAP_S
    assert metrics["answer_ttft_p95_s"] >= metrics["answer_ttft_s"]
    assert (metrics["reasoning_tokens_mean"], metrics["answered_fraction"]) == (4.0, 1.0)


def test_a_record_keeps_when_each_answer_began(tmp_path: Path) -> None:
    """So that the figure can be computed again; a request without thoughts takes no more room than before."""
    store = Store(tmp_path)
    plain = RequestTrace(1, 0, 4, 0.0, 0.0, (0.5,), (1,))
    path = store.put(replace(served(), metrics={"answer_ttft_s": 9.0}), (_THINKS, plain))

    assert store.traces(path) == (_THINKS, plain)
    lines = gzip.decompress(attachment_of(path, "traces").read_bytes()).decode().splitlines()
    assert ["answer_s" in line for line in lines] == [False, True, False]
    assert list(recompute.recompute(store, ["answer_*"])) == [{"answer_ttft_s": (9.0, 1.0)}]


@pytest.mark.parametrize("field", ['"answer_s":9.0', '"answer_s":"x"', '"answer_s":-1', '"answer_s":1e999'])
def test_an_answer_at_a_time_that_cannot_be_is_damage(tmp_path: Path, field: str) -> None:
    """Before the first token, after the last one, or no number."""
    store = Store(tmp_path)
    path = store.put(served(), (_THINKS,))
    file = attachment_of(path, "traces")
    file.write_bytes(gzip.compress(gzip.decompress(file.read_bytes()).replace(b'"answer_s":1.5', field.encode())))

    with pytest.raises(UserError, match=r"r0\.traces\.jsonl\.gz (is damaged|has times that cannot be)"):
        store.traces(path)


def test_tables_have_it_beside_ttft_where_it_was_measured() -> None:
    """In a column of its own, its percentiles in the spreadsheet; another load has none of these."""
    metrics = {"concurrency": 1.0, "ttft_s": 0.5, "answer_ttft_s": 1.5, "answer_ttft_p95_s": 2.5}
    metrics |= {"reasoning_tokens_mean": 120.0, "answered_fraction": 0.75}
    cell = replace(served().cell, workload=Closed())
    table = build.build([replace(served(), cell=cell, metrics=metrics)])
    plain = build.build([replace(served(), cell=cell, metrics={"concurrency": 1.0, "ttft_s": 0.5})])

    heads = render.render(table, "md")
    assert "first of answer ms" in heads
    assert "| 1500 |" in heads
    assert "reasoning tokens" in heads
    assert "answered %" in heads
    assert "answer_ttft_p95_s," in render.csv_text(table)
    for text in (render.render(plain, "md"), render.csv_text(plain)):
        assert "answer" not in text
