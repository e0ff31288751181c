"""Workloads as jobs of the load process: lengths, prompts, schedules, and what cannot be asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from bench.contract.errors import UserError
from bench.contract.record import RequestTrace
from bench.contract.workload import KINDS, Trace
from bench.load import build
from bench.load.job import ClosedSchedule, Endpoint, LoadAnswer, LoadJob, RequestResult
from tests.conftest import ROOT

TOKENIZER = ROOT / "models" / "demo" / "tokenizer.json"
IDS = build.Target(Endpoint("http://localhost:1", "m"), vocab_size=4096, tokenizer=TOKENIZER, context=1024)
TEXT = build.Target(Endpoint("http://localhost:1", "m"), tokenizer=TOKENIZER, context=1024)
CHAT = build.Target(Endpoint("http://localhost:1", "m", api="chat"), 4096, TOKENIZER, 1024)


def _opened(load: Any, target: build.Target) -> LoadJob:
    """The job of an open load without what goes before and after it."""
    return build.opened(load, target, "s", "0")[0].job(0.0)


def _load(kind: str = "open", **fields: Any) -> Any:
    rate = {} if kind == "closed" else {"rate_per_s": 10.0}
    return KINDS[kind](**{**rate, "prompt_tokens": 32, "new_tokens": 8, "requests": 40, **fields})


def test_a_closed_load_warms_up_with_twice_its_concurrency() -> None:
    """And no prompt begins like another."""
    job = build.closed(_load(kind="closed", concurrency=4), IDS, "s/0")

    assert job.closed is not None
    assert (job.closed.warmups, job.closed.after) == (8, 4)
    assert len(job.requests) == 8 + 40 + 4
    assert {len(request.ids) for request in job.requests} == {32}
    assert len({request.ids[0] for request in job.requests}) == 52
    assert build.prompt_facts(IDS)["prompts"] == "ids"


def test_a_conversations_prompt_grows_by_answer_and_question() -> None:
    """Each turn's prompt begins with the whole one before it; lengths are exact."""
    job = build.closed(_load(kind="closed", concurrency=2, turns=3, requests=9), IDS, "s/0")

    assert job.closed is not None
    assert (job.closed.turns, job.closed.warmups, job.closed.after) == (3, 6, 6)
    assert len(job.requests) == 6 + 9 + 6
    for first in range(0, 15, 3):
        one, two, three = (list(request.ids) for request in job.requests[first : first + 3])
        assert (len(one), len(two), len(three)) == (32, 72, 112)
        assert two[:32] == one
        assert three[:72] == two


def test_a_conversation_over_chat_has_roles() -> None:
    """User and assistant in turns, the user last."""
    job = build.closed(_load(kind="closed", turns=2, requests=2), CHAT, "s/0")

    assert [role for role, _ in job.requests[1].messages] == ["user", "assistant", "user"]
    assert build.prompt_facts(CHAT)["prompts"] == "chat"


def test_text_prompts_have_the_length_by_the_models_tokenizer() -> None:
    """A server that takes text only is asked as many tokens as the others."""
    job = _opened(_load(), TEXT)
    encode = Tokenizer.from_file(str(TOKENIZER)).encode

    assert {len(encode(request.text).ids) for request in job.requests} == {32}
    assert {request.prompt_tokens for request in job.requests} == {32}
    assert build.prompt_facts(TEXT)["prompts"] == "text"


def test_drawn_lengths_fit_the_context_together() -> None:
    """Both ends are drawn, and never exceed the model."""
    load = _load(lengths="lognormal", spread=2.0, prompt_tokens=600, new_tokens=200, requests=300)
    job = _opened(load, IDS)
    sizes = [(len(request.ids), request.new_tokens) for request in job.requests]

    assert len(set(sizes)) > 100
    assert max(a + b for a, b in sizes) <= 1024
    assert min(b for _, b in sizes) >= 2


def test_a_window_asks_for_as_many_requests_as_fill_it() -> None:
    """At ten a second twenty seconds are 200 requests, whatever the least was."""
    requests, _ = build.opened(_load(window_s=20.0), IDS, "s", "0")

    assert len(requests.due_s) == 200
    assert requests.window_s == 20.0


@pytest.mark.parametrize("arrivals", ["poisson", "constant", "gamma"])
@pytest.mark.parametrize("lead_s", [0.5, 4.0, 11.0])
def test_the_load_goes_on_around_the_window_as_it_is_within(arrivals: str, lead_s: float) -> None:
    """Every stretch as long as the window has the same tokens due in it, gap by gap; prompts are not repeated."""
    load = _load(arrivals=arrivals, lengths="lognormal", spread=0.8)
    requests, _ = build.opened(load, IDS, "s", "0")
    job = requests.job(lead_s)

    assert job.opened is not None
    assert job.opened.window_end_s - job.opened.lead_s == pytest.approx(4.0)
    due = [(due - lead_s, request.new_tokens) for due, request in zip(job.opened.due_s, job.requests, strict=True)]
    window = [(at, n) for at, n in due if 0 <= at < 4.0]
    assert len(window) == 40
    assert due[0][0] >= -lead_s
    assert due[-1][0] < 4.0 + lead_s
    for at, n in due:
        assert any(n == m and min(abs(at - t) % 4.0, 4.0 - abs(at - t) % 4.0) < 1e-6 for t, m in window)
    assert len(due) == pytest.approx(40 + 2 * 10 * lead_s, rel=0.4)
    assert len({tuple(request.ids) for request in job.requests}) == len(job.requests)


def test_the_load_goes_on_for_as_long_as_answers_take() -> None:
    """Twice the time of a warm-up's answers, or the longest; a ramp begins with nothing."""
    requests, _ = build.opened(_load(), IDS, "s", "0")
    ramp, _ = build.opened(_load(arrivals="ramp"), IDS, "s", "0")

    def warmup(*took_s: float) -> LoadAnswer:
        traces = [RequestTrace(i, 0, 32, 1.0, 1.0, (), ()) for i in range(len(took_s))]
        return LoadAnswer(
            measured=tuple(RequestResult(t, None, 1.0, 1.1, 1.0 + s) for t, s in zip(traces, took_s, strict=True))
        )

    assert requests.lead_s(warmup(9.0, 9.0, 1.5, 1.5)) == pytest.approx(3.0)  # the first ones met a cold server
    assert requests.lead_s(warmup(1.0, 1.0, 1.0, 1.0, 1.0, 8.0)) == pytest.approx(8.0)
    assert requests.lead_s(LoadAnswer()) == 0.0
    assert ramp.lead_s(warmup(1.5)) == 0.0
    assert ramp.window_s == 2 * requests.window_s == 8.0


def test_a_warm_up_has_the_longest_requests_too() -> None:
    """They come last, when the server is warm: how long the longest answer takes is read from them."""
    load = _load(lengths="lognormal", spread=1.0, requests=200, new_tokens=64)
    requests, _ = build.opened(load, IDS, "s", "0")
    new = [request.new_tokens for request in requests.warmup.requests]

    assert requests.warmup.closed == ClosedSchedule(10, 0)
    assert len(new) == 20
    assert new == sorted(new)
    assert new[-1] == max(size.new_tokens for size in requests.sizes)


@pytest.fixture
def trace(tmp_path: Path) -> str:
    """A hundred requests half a second apart, every fifth too long for the demo model."""
    file = tmp_path / "trace.csv"
    sizes = [4000 if i % 5 == 0 else 100 for i in range(100)]
    lines = [f"2023-11-16 18:15:{i // 2:02d}.{5 * (i % 2)}000000,{size},20" for i, size in enumerate(sizes)]
    file.write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *lines]))
    return str(file)


def test_a_trace_is_replayed_scaled_and_cut_to_the_context(trace: str) -> None:
    """The file's own gaps over the speed, its lengths as far as the model goes, and how many were cut."""
    load = Trace(path=trace, speed=10.0, requests=50)
    requests, facts = build.opened(load, IDS, "s", "0")
    job, again = requests.job(0.0), build.opened(load, IDS, "s", "1")[0].job(0.0)

    assert job.opened is not None
    own = job.requests
    assert requests.window_s == pytest.approx(50 * 0.05)
    assert job.opened.due_s == pytest.approx([i * 0.05 for i in range(50)])
    assert facts["capped"] == sum(len(request.ids) == 1004 for request in own) == 10
    assert {len(request.ids) for request in own} == {100, 1004}
    assert {request.new_tokens for request in own} == {20}
    assert [len(a.ids) for a in again.requests] == [len(a.ids) for a in job.requests]  # the same stretch each round
    assert again.requests[-1].ids != job.requests[-1].ids  # of other words


def test_a_traces_lengths_can_come_at_another_rate(trace: str) -> None:
    """With rate_per_s the file's times are left aside."""
    requests, _ = build.opened(Trace(path=trace, rate_per_s=5.0, requests=100), IDS, "s", "0")

    assert requests.window_s == 20.0
    assert 16.0 < requests.due_s[-1] < 20.0


def test_a_trace_of_texts_sends_its_texts(tmp_path: Path) -> None:
    """ShareGPT: as ids where the server takes them, as text elsewhere; it has no times of its own."""
    file = tmp_path / "sharegpt.json"
    turns = [[{"from": "human", "value": f"why {i}?"}, {"from": "gpt", "value": "it is"}] for i in range(9)]
    file.write_text(json.dumps([{"conversations": turn} for turn in turns]))
    load = Trace(path=str(file), rate_per_s=5.0, requests=9)
    ids, text = _opened(load, IDS), _opened(load, TEXT)

    decode = Tokenizer.from_file(str(TOKENIZER)).decode
    assert {decode(list(request.ids)).strip() for request in ids.requests} == {f"why {i}?" for i in range(9)}
    assert {request.text for request in text.requests} == {f"why {i}?" for i in range(9)}
    with pytest.raises(UserError, match="has no times: give the workload a rate_per_s"):
        build.opened(Trace(path=str(file), requests=9), IDS, "s", "0")
