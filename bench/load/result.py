"""What is recorded of a request: its tokens with their times, or why it failed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from http.client import responses

from bench.contract.outside import printable
from bench.contract.record import RequestTrace
from bench.load.connection import Exchange
from bench.load.job import Endpoint, Failure, Request, RequestResult
from bench.load.reply import Reply, Scrub, count, error_message, read
from bench.load.request import address
from bench.load.sse import Event, events

_EVENT_FIELDS = (b"data:", b"event:", b"id:", b"retry:", b":")
_HEAD = 64  # bytes and pieces of a body that are looked at
_WORD_LENGTH = 200  # characters that are kept of a header


def decode(exchange: Exchange, scrub: Scrub = str, *, whole: bool = False) -> Reply:
    """The answer's events, or why it has none; `scrub` takes secrets out of what is kept of the server's words.

    `whole`: it is not streamed, and its text is the body itself.
    """
    if exchange.failure == "malformed":
        return Reply()
    if exchange.status != 200:
        message = error_message(b"".join(exchange.parts), scrub) or responses.get(exchange.status, "no message")
        return Reply(failure="status", message=f"HTTP {exchange.status}: {message}")
    if whole:
        body = b"".join(exchange.parts)
        return replace(read([Event(exchange.end_s, body, b"")], scrub), content=scrub(body.decode(errors="replace")))
    if not _is_event_stream(exchange):
        message = error_message(b"".join(exchange.parts), scrub)
        kind = scrub(exchange.content_type)[:_WORD_LENGTH] or "no content type"
        return Reply(failure="malformed", message=f"the answer is not an event stream ({kind}): {message}")
    return read(events(exchange.parts, exchange.read_s, exchange.read_end), scrub)


def _is_event_stream(exchange: Exchange) -> bool:
    """By its beginning, whatever the server calls it."""
    head = b"".join(exchange.parts[:_HEAD])[:_HEAD].removeprefix(b"\xef\xbb\xbf").lstrip()
    if exchange.content_type.lower().startswith("text/event-stream"):
        return not head.startswith((b"{", b"[", b"<"))
    return head.startswith(_EVENT_FIELDS)


def request_result(
    exchange: Exchange,
    reply: Reply,
    request: Request,
    endpoint: Endpoint,
    scrub: Scrub = str,
    *,
    zero_s: float,
    window: int,
    closed: bool,
) -> RequestResult:
    """The record of one request, its times from `zero_s`; in a closed loop it is due when it is sent."""
    failure, message = verdict(exchange, reply, request, exact=endpoint.exact_length)
    if failure and failure != "cancelled":
        to = address(endpoint)
        address_note = f"(asked {to.url if endpoint.remote else to.path})"
        message = printable(
            scrub("; ".join([f"{message} {address_note}", *_advice(exchange, failure, message, endpoint)]))
        )
    details = reply.usage.get("prompt_tokens_details")
    sent = exchange.sent_s or exchange.end_s  # never sent: as late as its end
    due = sent if closed and not exchange.reconnects else exchange.due_s
    trace = RequestTrace(
        request=exchange.index,
        window=window,
        prompt_tokens=request.prompt_tokens or len(request.ids) or count(reply.usage, "prompt_tokens") or 0,
        due_s=due - zero_s,
        sent_s=sent - zero_s,
        token_s=tuple(time - zero_s for time in reply.times),
        event_tokens=reply.tokens,
        error=message,
        prompt_id=request.prompt_id,
        category=request.category,
        accepted_tokens=reply.accepted,
        reasoning_tokens=reply.reasoning,
        answer_s=reply.answer_s - zero_s if reply.reasoning and reply.answer_s is not None else None,
    )
    return RequestResult(
        trace=trace,
        failure=failure,
        queued_s=exchange.queued_s - zero_s,
        first_byte_s=exchange.read_s[0] - zero_s if exchange.read_s else None,
        end_s=exchange.end_s - zero_s,
        status=exchange.status,
        retry_after=scrub(exchange.retry_after)[:_WORD_LENGTH],
        finish=scrub(reply.finish),
        usage_prompt_tokens=count(reply.usage, "prompt_tokens"),
        usage_tokens=reply.usage_tokens,
        cached_tokens=count(details, "cached_tokens") if isinstance(details, dict) else None,
        surplus_tokens=reply.surplus,
        empty_events=reply.empty,
        chunk_gaps=reply.surplus != 0 or any(n > 1 for n in reply.tokens),
        reconnects=exchange.reconnects,
        fresh_connection=exchange.fresh,
        reasoning_tokens=reply.reasoning,
        answer_s=None if reply.answer_s is None else reply.answer_s - zero_s,
        calls_only=reply.calls_only,
        counted_by=reply.counted_by,
        new_tokens=request.new_tokens,
        shared_tokens=request.shared_tokens,
        answer=reply.content if request.scored else reply.text if request.keep_answer else "",
    )


def _advice(exchange: Exchange, failure: Failure, message: str, endpoint: Endpoint) -> Iterator[str]:
    """What to do, where the failure is a well-known one."""
    status = exchange.status if failure == "status" else 0
    if 300 <= status < 400 and exchange.location:
        yield f"it points to {exchange.location[:_WORD_LENGTH]}: give that as the URL, since no redirect is followed"
    if status in (404, 405) and endpoint.api == "completions":
        yield "if it has the chat API alone: --chat (api: chat in a suite)"
    if status == 401 and not endpoint.key_variable:
        yield "--key-variable (key_variable in a suite) names the environment variable with its API key"
    if "max_completion_tokens" in message and endpoint.length_field != "max_completion_tokens":
        yield "--length-field max_completion_tokens (length_field in a suite)"
    if "ignore_eos" in message and endpoint.exact_length:
        yield "--allow-stop (exact: false in a suite) leaves ignore_eos out"


def verdict(exchange: Exchange, reply: Reply, request: Request, *, exact: bool) -> tuple[Failure | None, str]:
    """The first thing that went wrong, with a sentence for it; None where nothing did."""
    if exchange.failure and not (exchange.failure == "reset" and reply.ended):
        return exchange.failure, exchange.message
    if reply.failure:
        return reply.failure, reply.message
    return _incomplete(exchange, reply, request, exact=exact)


def _incomplete(exchange: Exchange, reply: Reply, request: Request, *, exact: bool) -> tuple[Failure | None, str]:
    """The same for a stream without an error in it."""
    received, usage = sum(reply.tokens), reply.usage_tokens
    if not (reply.ended or (exchange.complete and reply.finish)):
        return "truncated", f"the stream ended after {received} tokens with neither [DONE] nor a finish reason"
    if not reply.times and not (request.scored and reply.finish):
        return "empty", f"no event had a token; the usage counts {0 if usage is None else usage}"
    if exact and usage is not None and usage != request.new_tokens and not request.natural:
        return "length", f"got {usage} tokens, expected {request.new_tokens}"
    if exact and usage is not None and usage > request.new_tokens:
        return "length", f"got {usage} tokens, expected {request.new_tokens} at the most"
    sent, counted = request.prompt_tokens or len(request.ids), count(reply.usage, "prompt_tokens")
    if exact and sent and counted is not None and counted != sent:
        return "length", f"the server counted {counted} prompt tokens, {sent} were sent"
    return None, ""
