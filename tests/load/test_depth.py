"""Loads at a depth: the context goes first, every prompt begins with it, and the server must have had it."""

from __future__ import annotations

from typing import Any

import pytest

from bench.contract.errors import UserError
from bench.contract.record import RequestTrace
from bench.contract.workload import Closed, SingleLoad, Sweep
from bench.load import build, depth, sweep
from bench.load.job import Endpoint, LoadAnswer, RequestResult

_SIZES: dict[str, Any] = {"prompt_tokens": 8, "new_tokens": 4}
_IDS = build.Target(Endpoint("http://localhost:1", "m"), vocab_size=4096, reuse={"cache_prompt": True})
_TEXT = build.Target(Endpoint("http://localhost:1", "m"))


def _answer(*cached: int | None, prompt: int = 108) -> LoadAnswer:
    trace = RequestTrace(0, 0, prompt, 0.0, 0.0, (1.0, 2.0), (1, 1))
    return LoadAnswer(measured=tuple(RequestResult(trace, None, 0.0, 0.5, 2.0, cached_tokens=n) for n in cached))


def test_the_context_goes_first_and_every_prompt_begins_with_it() -> None:
    """As often as requests are in flight; what follows it has another first token each time."""
    load = Closed(concurrency=3, requests=10, depth_tokens=100, **_SIZES)
    job = build.closed(load, _IDS, "s/0")
    fills, prompts = job.requests[:3], job.requests[3:]

    assert job.closed is not None
    assert (job.closed.warmups, job.closed.after, job.closed.turns) == (3 + 6, 3, 1)
    assert len({tuple(request.ids) for request in fills}) == 1
    assert [len(request.ids) for request in fills] == [100] * 3
    assert {tuple(request.ids[:100]) for request in prompts} == {tuple(fills[0].ids)}
    assert {len(request.ids) for request in prompts} == {108}
    assert len({request.ids[100] for request in prompts}) == len(prompts) == 6 + 10 + 3
    assert all(request.extra == {"cache_prompt": True} for request in job.requests)


def test_a_server_that_takes_text_alone_cannot_be_loaded_at_a_depth() -> None:
    """How many of a text's tokens another begins with is not certain."""
    with pytest.raises(UserError, match="takes prompts of token ids"):
        build.closed(Closed(depth_tokens=100, **_SIZES), _TEXT, "s/0")


def test_requests_are_what_followed_the_context() -> None:
    """A prompt has the tokens that were read after the clock started."""
    (result,) = depth.after_context(_answer(100), 100).measured

    assert result.trace.prompt_tokens == 8


@pytest.mark.parametrize(
    ("cached", "sentence"),
    [
        ((100, 100), ""),
        ((100, 96), "had 96 to 100 tokens of a prompt in its cache, and depth_tokens is 100"),
        ((0, 0), "had 0 tokens of a prompt in its cache, and depth_tokens is 100"),
        ((108,), "had 108 tokens"),
        ((100, None), "does not tell how much of a prompt it had in its cache"),
    ],
)
def test_what_the_server_had_is_what_was_asked_for(cached: tuple[int | None, ...], sentence: str) -> None:
    """Fewer tokens were read again within the TTFT, more were no prompt of their own: an error, with both numbers."""
    error = depth.after_context(_answer(*cached), 100).error

    assert sentence in error
    assert bool(sentence) == bool(error)


def test_a_sweep_over_the_depth_ends_at_the_deepest() -> None:
    """Doubled from the first, the last whatever that is; the record's figures are of the last."""
    loads: list[SingleLoad] = []

    def apply(load: SingleLoad, _: int) -> tuple[LoadAnswer, dict[str, Any]]:
        loads.append(load)
        return _answer(load.deepest, prompt=8), {"depth_tokens": load.deepest}

    load = Sweep(over="depth", depth_tokens=512, most=3000, concurrency=2, **_SIZES)
    stages, facts = sweep.run(load, apply)

    assert [each.deepest for each in loads] == [512, 1024, 2048, 3000]
    assert {each.concurrency for each in loads if isinstance(each, Closed)} == {2}
    assert [stage["level"] for stage in facts["stages"]] == [512, 1024, 2048, 3000]
    assert (facts["chosen"], facts["depth_tokens"], len(stages)) == (3, 3000, 4)
