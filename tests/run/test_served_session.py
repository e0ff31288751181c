"""Items asked of servers on loopback: what each request has, and what becomes of its answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.contract.address import Api
from bench.contract.errors import CellError, UnsupportedError, UserError
from bench.contract.hooks import Question
from bench.contract.served import ServedPrompt
from bench.contract.server import PromptLogprobs
from bench.load import client
from bench.load.build import Target
from bench.load.job import Endpoint
from bench.run.served import choices
from bench.run.served.session import EndpointSession, Finished
from tests.load import endpoints
from tests.load.endpoints import Received, Response

_PROMPTS = [ServedPrompt((10 + n, 7), 4, ("\n",), f"text {n}", (("user", f"question {n}"),)) for n in range(5)]
_QUESTIONS = [Question((1, 2), ((3,), (4, 5), (4, 6))), Question((6,), ((7, 8, 9),))]


def _session(
    url: str, file: Path, *, ids: bool = True, api: Api = "completions", how: PromptLogprobs = ""
) -> EndpointSession:
    target = Target(Endpoint(url, "m", api=api, timeout_s=20.0), vocab_size=100 if ids else 0)
    return EndpointSession(target, 2, "0/t/0", client.run, Finished(file), how)


def _answer(text: Callable[[dict[str, Any]], str]) -> endpoints.Answer:
    """A server whose answer to a body is this text, in one event of its API."""

    def answer(request: Received) -> Response:
        content = text(request.body)
        chunk = {"delta": {"content": content}} if "messages" in request.body else {"text": content}
        choice = {"index": 0, **chunk, "finish_reason": "stop"}
        end = {"choices": [], "usage": {"prompt_tokens": 2, "completion_tokens": 2}}
        return endpoints.streamed({"choices": [choice]}, end)

    return answer


def _by_ids(body: dict[str, Any]) -> str:
    return f"after {body['prompt'][0]}"


def test_answers_come_in_the_order_of_the_prompts_and_are_asked_in_another(tmp_path: Path) -> None:
    """Requests before and after the items keep the load up; each ends at its stop or where the model ends it."""
    with endpoints.endpoint(_answer(_by_ids)) as running:
        session = _session(running.url, tmp_path / "answers")
        answers = session.answers(_PROMPTS)
    bodies = [request.body for request in running.requests]

    assert answers == [f"after {10 + n}" for n in range(5)]
    assert len(bodies) in (8, 9)  # the last is not sent where the items are over before
    assert all(b["stop"] == ["\n"] and b["max_tokens"] == 4 and b["temperature"] == 0 for b in bodies)
    assert not any("ignore_eos" in body for body in bodies)
    assert session.load is not None
    by_request = [result.answer for result in session.load.measured]
    assert sorted(by_request) == answers != by_request
    assert not (tmp_path / "answers").exists()


def test_an_answer_that_ends_at_once_is_an_empty_one(tmp_path: Path) -> None:
    """A model may say nothing; that is an answer, right or wrong."""
    with endpoints.endpoint(_answer(lambda body: "" if body["prompt"][0] == 12 else "x")) as running:
        assert _session(running.url, tmp_path / "answers").answers(_PROMPTS) == ["x", "x", "", "x", "x"]


def test_a_server_is_given_what_it_takes(tmp_path: Path) -> None:
    """Text where it takes no ids, messages by the chat API; a prompt that has none of them is a sentence."""
    bare = [ServedPrompt((1, 2), 4)]
    with endpoints.endpoint(_answer(lambda body: f"<{body['prompt']}>")) as running:
        session = _session(running.url, tmp_path / "answers", ids=False)
        assert session.answers(_PROMPTS[:2]) == ["<text 0>", "<text 1>"]
        with pytest.raises(UserError, match="prompts of token ids alone"):
            session.answers(bare)
    with endpoints.endpoint(_answer(lambda body: body["messages"][-1]["content"])) as running:
        session = _session(running.url, tmp_path / "answers", api="chat")
        assert session.answers(_PROMPTS[:2]) == ["question 0", "question 1"]
        with pytest.raises(UserError, match="give the task its chat option"):
            session.answers(bare)


def test_reasoning_that_a_server_tells_apart_is_no_part_of_the_answer(tmp_path: Path) -> None:
    """Deltas of reasoning come before those of the content, which alone is scored."""

    def answer(_: Received) -> Response:
        return endpoints.streamed({"reasoning_content": "2 + 2"}, {"content": "4"}, endpoints.usage(2))

    with endpoints.endpoint(answer) as running:
        assert _session(running.url, tmp_path / "answers", api="chat").answers(_PROMPTS[:1]) == ["4"]


def test_the_next_run_asks_for_what_was_not_answered(tmp_path: Path) -> None:
    """Of five items one is refused: a sentence with the number and the reason, and then the one alone."""
    file = tmp_path / "answers"

    def refusing(request: Received) -> Response:
        if request.body["prompt"][0] == 13:
            return Response(status=500, body=b'{"error": {"message": "out of slots"}}')
        return _answer(_by_ids)(request)

    with endpoints.endpoint(refusing) as running, pytest.raises(CellError) as error:
        _session(running.url, file).answers(_PROMPTS)
    assert "4 of 5 items were answered; the first of the others: HTTP 500: out of slots" in str(error.value)
    assert "(--retry failed) asks for the others alone" in str(error.value)
    with endpoints.endpoint(_answer(_by_ids)) as running:
        session = _session(running.url, file)
        assert session.answers(_PROMPTS) == [f"after {10 + n}" for n in range(5)]
    assert session.resumed == 4
    assert {request.body["prompt"][0] for request in running.requests} == {13}


def _logprob(token: int) -> float:
    return -token / 8


def _scored(request: Received) -> Response:
    """A server whose log-probability of a token is -id / 8, in both forms; odd tokens are not the likeliest."""
    ids = request.body["prompt"]
    echoed = {
        "token_logprobs": [None, *map(_logprob, ids[1:]), -1.0],
        "top_logprobs": [None, *({"best": _logprob(t) + 0.5 * (t % 2), "own": _logprob(t)} for t in ids[1:]), {}],
    }
    by_id = [None, *({str(t): {"logprob": _logprob(t), "rank": 1 + t % 2}} for t in ids[1:])]
    choice = {"index": 0, "text": "x", "finish_reason": "length"}
    choice |= {"logprobs": echoed} if request.body.get("echo") else {"prompt_logprobs": by_id}
    usage = {"prompt_tokens": len(ids), "completion_tokens": 1}
    return Response(body=json.dumps({"choices": [choice], "usage": usage}).encode())


@pytest.mark.parametrize("how", ["echo", "prompt_logprobs"])
def test_choices_are_scored_by_the_log_probabilities_of_a_prompt(tmp_path: Path, how: PromptLogprobs) -> None:
    """The sum over a choice's tokens, and greedy where each was the likeliest; no answer is streamed."""
    with endpoints.endpoint(_scored) as running:
        scores = dict(_session(running.url, tmp_path / "answers", how=how).loglikelihood(_QUESTIONS))

    assert [score.logprob for score in scores[0]] == pytest.approx([_logprob(3), _logprob(9), _logprob(10)])
    assert [score.logprob for score in scores[1]] == pytest.approx([_logprob(24)])
    assert [score.is_greedy for score in (*scores[0], *scores[1])] == [False, False, True, False]
    assert not any("stream" in request.body for request in running.requests)


@pytest.mark.parametrize("how", ["echo", "prompt_logprobs"])
@pytest.mark.parametrize(
    "body",
    [
        {},
        {"choices": []},
        {"choices": [{"text": "x"}]},
        {"choices": [{"logprobs": None, "prompt_logprobs": None}]},
        {"choices": [{"logprobs": {"token_logprobs": [None], "top_logprobs": [None]}, "prompt_logprobs": [None]}]},
        {"choices": [{"prompt_logprobs": [None, {"3": {"logprob": "x", "rank": 1}}], "logprobs": {}}]},
        {
            "choices": [
                {
                    "prompt_logprobs": [None, {"3": {"logprob": float("nan"), "rank": 1}}],
                    "logprobs": {"token_logprobs": [None, float("nan")], "top_logprobs": [None, {"a": 0.0}]},
                }
            ]
        },
    ],
)
def test_an_answer_without_log_probabilities_is_a_sentence(body: Any, how: PromptLogprobs) -> None:
    """Whatever its form, a server that was to give them and did not."""
    with pytest.raises(ValueError, match="has no log-probabilities of the prompt"):
        choices.score(json.dumps(body), 1, [3], how)


def test_a_server_that_cannot_score_choices_is_unsupported(tmp_path: Path) -> None:
    """One that gives no log-probabilities, and one that takes no ids; no question needs neither."""
    session = _session("http://127.0.0.1:9", tmp_path / "answers")
    assert list(session.loglikelihood([])) == []
    with pytest.raises(UnsupportedError, match="which this server gives not"):
        list(session.loglikelihood(_QUESTIONS))
    with pytest.raises(UnsupportedError, match="set ids: true"):
        list(_session("http://127.0.0.1:9", tmp_path / "answers", ids=False, how="echo").loglikelihood(_QUESTIONS))


def test_a_server_has_no_session_s_other_abilities(tmp_path: Path) -> None:
    """Perplexity and divergence need logits, which no server gives."""
    session = _session("http://127.0.0.1:9", tmp_path / "answers")
    with pytest.raises(UserError, match="no logits"):
        session.logits([1])
    with pytest.raises(UserError, match="whole answers"):
        session.generate([[1]], 1)
