from __future__ import annotations

import http.client
import json
from typing import Any

import pytest

from tests.instrument.script import Script, plan
from tests.instrument.scripted_server import Scripted


def ask(server: Scripted, script: dict[str, Any], tokens: int = 5) -> bytes:
    """One request through the standard library's client: its body, chunks put together."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    body = json.dumps({"prompt": "p", "max_tokens": tokens, "script": script})
    connection.request("POST", "/v1/completions", body)
    try:
        return connection.getresponse().read()
    finally:
        connection.close()


@pytest.mark.clock
def test_the_schedule_does_not_add_up_its_lateness(server: Scripted) -> None:
    """None of 50 sends is early, and one of the last ten is on time: a late one delays no other."""
    server.reset()
    ask(server, {"ttft_s": 0.02, "itl_s": 0.004}, tokens=50)

    [entry] = server.log()
    late = [t - entry.received_s - (0.02 + 0.004 * i) for i, t in enumerate(entry.token_s)]
    assert len(late) == 50
    assert min(late) >= 0
    assert min(late[-10:]) < 0.002


def test_an_answer_is_a_stream_any_client_reads(server: Scripted) -> None:
    """Five texts, a finish reason, usage and [DONE], in chunked transfer."""
    events = [e.removeprefix("data: ") for e in ask(server, {}).decode().strip().split("\n\n")]

    assert events[-1] == "[DONE]"
    rows = [json.loads(event) for event in events[:-1]]
    texts = [row["choices"][0]["text"] for row in rows if row["choices"]]
    assert texts == [" tok"] * 5 + [""]
    assert rows[-1]["usage"]["completion_tokens"] == 5
    assert rows[-2]["choices"][0]["finish_reason"] == "length"


def test_streams_take_turns_without_an_interval(server: Scripted) -> None:
    """With ITL 0 an answer leaves as fast as it can, one event in a send."""
    server.reset()
    ask(server, {}, tokens=200)

    [entry] = server.log()
    assert len(entry.token_s) == 200
    assert entry.token_s[-1] - entry.token_s[0] < 0.5


@pytest.mark.parametrize(
    ("script", "tokens"),
    [
        (Script(), (1, 1, 1, 0, 0, 0)),
        (Script(per_event=2), (2, 1, 0, 0, 0)),
        (Script(burst=2), (2, 1, 0)),
        (Script(split=True, split_s=0.0), (0, 1) * 3 + (0, 0) * 3),
        (Script(close_after=2), (1, 1)),
        (Script(empties=1, usage="none", done=False, finish=False), (1, 0, 1, 0, 1)),
        (Script(role=True, error_after=1), (0, 1, 0)),
        (Script(status=500), (0,)),
    ],
)
def test_a_plan_says_which_sends_bear_tokens(script: Script, tokens: tuple[int, ...]) -> None:
    """Three tokens in the sends that a script makes of them."""
    planned = plan(script, 3, chat=False)

    assert planned.bears == tokens
    assert len(planned.sends) == len(planned.offsets) == len(tokens)
    assert list(planned.offsets) == sorted(planned.offsets)
