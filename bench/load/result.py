"""What is recorded of a request: its tokens with their times, or why it failed."""

from __future__ import annotations

from bench.contract.record import RequestTrace
from bench.load.connection import Exchange
from bench.load.job import Endpoint, Failure, Request, RequestResult
from bench.load.reply import Reply, count, error_message, read
from bench.load.sse import events


def decode(exchange: Exchange) -> Reply:
    """The answer's events; empty where it is not an event stream."""
    if exchange.status != 200 or exchange.content_type.startswith("application/json"):
        return Reply()
    return read(events(exchange.parts, exchange.read_s, exchange.read_end))


def request_result(
    exchange: Exchange, reply: Reply, request: Request, endpoint: Endpoint, *, zero_s: float, window: int, closed: bool
) -> RequestResult:
    """The record of one request, its times from `zero_s`; in a closed loop it is due when it is sent."""
    failure, message = verdict(exchange, reply, request, exact=endpoint.exact_length)
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
    )
    return RequestResult(
        trace=trace,
        failure=failure,
        queued_s=exchange.queued_s - zero_s,
        first_byte_s=exchange.read_s[0] - zero_s if exchange.read_s else None,
        end_s=exchange.end_s - zero_s,
        status=exchange.status,
        retry_after=exchange.retry_after,
        finish=reply.finish,
        usage_prompt_tokens=count(reply.usage, "prompt_tokens"),
        usage_tokens=reply.usage_tokens,
        cached_tokens=count(details, "cached_tokens") if isinstance(details, dict) else None,
        surplus_tokens=reply.surplus,
        empty_events=reply.empty,
        chunk_gaps=reply.surplus != 0 or any(n > 1 for n in reply.tokens),
        reconnects=exchange.reconnects,
        fresh_connection=exchange.fresh,
    )


def verdict(exchange: Exchange, reply: Reply, request: Request, *, exact: bool) -> tuple[Failure | None, str]:
    """The first thing that went wrong, with a sentence for it; None where nothing did."""
    if exchange.failure and not (exchange.failure == "reset" and reply.ended):
        return exchange.failure, exchange.message
    if exchange.status != 200:
        return "status", f"HTTP {exchange.status}: {error_message(b''.join(exchange.parts))}"
    if exchange.content_type.startswith("application/json"):
        return "malformed", f"the answer is not an event stream: {error_message(b''.join(exchange.parts))}"
    if reply.failure:
        return reply.failure, reply.message
    return _incomplete(exchange, reply, request, exact=exact)


def _incomplete(exchange: Exchange, reply: Reply, request: Request, *, exact: bool) -> tuple[Failure | None, str]:
    """The same for a stream without an error in it."""
    received, usage = sum(reply.tokens), reply.usage_tokens
    if not (reply.ended or (exchange.complete and reply.finish)):
        return "truncated", f"the stream ended after {received} tokens with neither [DONE] nor a finish reason"
    if not reply.times:
        return "empty", f"no event had a token; the usage counts {0 if usage is None else usage}"
    if exact and usage is not None and usage != request.new_tokens:
        return "length", f"got {usage} tokens, expected {request.new_tokens}"
    sent, counted = request.prompt_tokens or len(request.ids), count(reply.usage, "prompt_tokens")
    if exact and sent and counted is not None and counted != sent:
        return "length", f"the server counted {counted} prompt tokens, {sent} were sent"
    return None, ""
