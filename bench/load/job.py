"""The job of the load process and its answer: what to send and when, what came back and when.

Standard library only. Both cross the process boundary as JSON, by `bench.contract.wire`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from bench.contract.address import Api
from bench.contract.record import RequestTrace
from bench.load.counting import CountedBy

BEARER = "Authorization"  # the header whose key is a bearer token; any other has the key alone
Failure = Literal[
    "refused",  # no server listens there, or the name or the TLS handshake failed
    "reset",  # the connection was lost before a byte of the answer, or by force
    "timeout",  # not complete within Endpoint.timeout_s
    "status",  # an HTTP status that is not 200
    "truncated",  # the stream ended without its end: no [DONE] and no finish reason
    "malformed",  # not HTTP, not an event stream, not JSON, longer than what was asked can be
    "server",  # an error event in a stream that began with 200
    "empty",  # the usage counts tokens, and no event bore one
    "length",  # complete, but not of the requested length
    "cancelled",  # in flight when the run was stopped
]


@dataclass(frozen=True)
class Request:
    """One request: token `ids`, or `text`, or `messages` as (role, content).

    The completions API takes ids or text, the chat API messages or text. `prompt_tokens` 0 means: not known
    beforehand, the server's usage says. `extra` are body fields of this request alone. `natural`: the answer ends
    where the model ends it, at `new_tokens` at the latest. `prompt_id`, `category`: of a prompt of real text; else of
    a shared prefix, "cold" or "warm". `shared_tokens`: of its prompt those that an earlier prompt began with.
    `keep_answer`: its text is in the result. `scored`: so it is, and an answer that ends at once without a text is one
    too. `whole`: it is not streamed, and the result has the body as it came, which may say more than a text.
    """

    new_tokens: int
    ids: Sequence[int] = ()
    text: str = ""
    messages: Sequence[Sequence[str]] = ()
    prompt_tokens: int = 0
    extra: Mapping[str, Any] = field(default_factory=dict)
    natural: bool = False
    prompt_id: str = ""
    category: str = ""
    shared_tokens: int = 0
    keep_answer: bool = False
    scored: bool = False
    whole: bool = False


@dataclass(frozen=True)
class Endpoint:
    """Where the requests go.

    `url` is the server's root, its `/v1`, or the whole address (contract/address.py). `extra` are body fields over
    the defaults; null removes one (`{"ignore_eos": null}` for a server that refuses it; then `exact_length` must
    be off as well). `length_field` is what the server calls the number of tokens to generate. The key is read
    from the environment variable `key_variable`, goes into the header `key_header`, and is in no file. `ca`: a
    file of certificates to trust besides the system's. `timeout_s` bounds one request, connecting included.
    `remote` off: errors name the path alone, as the port of a server that a run starts is another in each round.
    """

    url: str
    model: str
    api: Api = "completions"
    extra: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    key_variable: str = ""
    exact_length: bool = True
    timeout_s: float = 600.0
    length_field: str = "max_tokens"
    key_header: str = BEARER
    ca: str = ""
    remote: bool = True


@dataclass(frozen=True)
class ClosedSchedule:
    """`concurrency` requests in flight, each followed by the next.

    The first `warmup` requests are not measured; -1 means twice the concurrency. Nor are the last `after`, which
    keep the concurrency up until every measured one is over, and are not sent after that. The window opens when
    the first measured request is sent and closes when the last is, or after `duration_s` where that is above
    zero: it holds neither ramp-up nor drain. The first requests of a run are spread over `ramp_s`.

    With `turns` above 1 the requests are conversations of so many each, one after the other: of the `concurrency`
    under way each sends its next turn `think_s` after the last one's answer, and ends with one that failed.
    `warmup` and `after` count requests all the same. `whole`: the window closes when the last turn of all of them is
    sent, not when the last conversation begins.
    """

    concurrency: int
    warmup: int = -1
    after: int = 0
    duration_s: float = 0.0
    ramp_s: float = 0.0
    turns: int = 1
    think_s: float = 0.0
    whole: bool = False

    @property
    def warmups(self) -> int:
        return 2 * self.concurrency if self.warmup < 0 else self.warmup


@dataclass(frozen=True)
class OpenSchedule:
    """Requests at their due times, whatever is in flight.

    `due_s` ascends, in seconds from the schedule's start, one for each request. The window opens `lead_s` into
    the schedule; what is due earlier is not measured. It closes at `window_end_s`, 0 meaning the last due
    time. What is due later is not measured either, and not sent once every measured request is over.
    `connections` are opened beforehand. `max_in_flight` above zero makes requests wait in the client: then sent
    and due differ.
    """

    due_s: Sequence[float]
    lead_s: float = 0.0
    window_end_s: float = 0.0
    max_in_flight: int = 0
    connections: int = 1


@dataclass(frozen=True)
class LoadJob:
    """Exactly one of `closed` and `opened` is set.

    The bodies of answers are decoded after the load; once more than `hold_bytes` of them are in memory, each is
    decoded as it ends, and LoadAnswer.decoded_inside says how many were. `tokenizer`: the path of a tokenizer.json
    that counts the tokens of answers where the server does not; none where empty.
    """

    endpoint: Endpoint
    requests: tuple[Request, ...]
    closed: ClosedSchedule | None = None
    opened: OpenSchedule | None = None
    hold_bytes: int = 1 << 29
    tokenizer: str = ""


@dataclass(frozen=True)
class RequestResult:
    """One request as the client saw it; all times in seconds from the window's opening.

    `trace.error` is one sentence, `failure` its kind. `queued_s` is when the client took the request up, as
    late as its timer was; `trace.sent_s` when the bytes went to the kernel (of the second try after a
    reconnect); `first_byte_s` is the first read of the answer, headers included; `end_s` the last read, or
    the failure.

    Tokens (bench/load/counting.py): `usage_tokens` is what the server counted, null where it did not;
    `trace.event_tokens` then adds up to it. Else they are what a tokenizer counts, or one per event that bore
    text: `counted_by` says which. `new_tokens` were asked for. `surplus_tokens` is what usage counts beyond the
    events (below zero: fewer); they stand in the last event, for nobody knows where they belong. `chunk_gaps` is
    true where an event bore several tokens or the surplus is not zero: the gaps are between chunks, not
    tokens. `empty_events` bore a choice without text (a role, a flush, a withheld half of a character).
    `reasoning_tokens` came before the answer, which began at `answer_s`; `calls_only`: it calls functions and has no
    text. `shared_tokens` as in the request.
    """

    trace: RequestTrace
    failure: Failure | None
    queued_s: float
    first_byte_s: float | None
    end_s: float
    status: int = 0
    retry_after: str = ""
    finish: str = ""
    usage_prompt_tokens: int | None = None
    usage_tokens: int | None = None
    cached_tokens: int | None = None
    surplus_tokens: int = 0
    empty_events: int = 0
    chunk_gaps: bool = False
    reconnects: int = 0
    fresh_connection: bool = False
    reasoning_tokens: int = 0
    answer_s: float | None = None
    calls_only: bool = False
    counted_by: CountedBy = "usage"
    new_tokens: int = 0
    shared_tokens: int = 0
    answer: str = ""


@dataclass(frozen=True)
class Health:
    """The client itself, in the window: `cpu_s` of `wall_s` is the process's own.

    `lag_*` is how late a 10 ms timer fired, of which up to 1 ms is the loop's own rounding. `preempted` counts
    how often the kernel took the core away.
    """

    wall_s: float = 0.0
    cpu_s: float = 0.0
    lag_p99_s: float = 0.0
    lag_max_s: float = 0.0
    lag_samples: int = 0
    preempted: int = 0


@dataclass(frozen=True)
class InFlight:
    """Requests in flight over the window: mean over time, fewest and most."""

    mean: float = 0.0
    low: int = 0
    high: int = 0


@dataclass(frozen=True)
class LoadAnswer:
    """What the load process saw. `error` is set where it could not begin.

    `measured` and `warmup`: the requests of the window and those before and after it, in the order in which they
    were sent.
    `zero_s` is CLOCK_MONOTONIC at the window's opening, which all processes of a machine share; `window_s`
    is how long the window was. `failures` counts the measured ones by kind. `reconnects` counts connections
    that the server dropped while idle and that a request could not use. `ended` says what closed the window.
    """

    error: str = ""
    measured: tuple[RequestResult, ...] = ()
    warmup: tuple[RequestResult, ...] = ()
    zero_s: float = 0.0
    window_s: float = 0.0
    health: Health = Health()
    in_flight: InFlight = InFlight()
    failures: Mapping[str, int] = field(default_factory=dict)
    reconnects: int = 0
    decoded_inside: int = 0
    ended: Literal["", "requests", "duration", "stopped"] = ""
