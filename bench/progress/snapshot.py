"""The state of a run at one moment, and the plain lines of it that a pipe gets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bench.contract.record import Status
from bench.progress.eta import SimilarityKeys, clock, duration

_LEFT = " left"  # what a text with the time left ends in


@dataclass(frozen=True)
class RoundLabel:
    """A round of a cell; `number` counts from 1 to `of`. `similarity_keys` as in eta.py.

    `at_once`: how many like it run at a time.
    """

    title: str
    device: str
    number: int
    of: int
    similarity_keys: SimilarityKeys = ()
    at_once: int = 1


@dataclass(frozen=True)
class Finished:
    """A round that is over; `count` rounds were by then. `detail`: its main figure or its reason."""

    cell: str
    number: int
    count: int
    status: Status
    seconds: float
    detail: str = ""


@dataclass(frozen=True)
class Activity:
    """What is being done, for how long by now, and in which round. `expected_s` is None while it is not known."""

    text: str = ""
    seconds: float = 0.0
    round: RoundLabel | None = None
    round_s: float = 0.0
    expected_s: float | None = None


@dataclass(frozen=True)
class Snapshot:
    """The whole state; `remaining_s` (from now on) is None while it is not known.

    `recorded` rounds were run before this run. `recent` are rounds that went well: a failure stays on screen.
    """

    elapsed_s: float
    activities: tuple[Activity, ...] = ()
    total: int = 0
    recorded: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)
    remaining_s: float | None = None
    recent: tuple[Finished, ...] = ()

    @property
    def done(self) -> int:
        return sum(self.counts.values())


def finished(ended: Finished, total: int, elapsed_s: float) -> str:
    """As "[ 12/65] 1:23 demo/nf4/hf/offline-b1-p128-n64 round 1 ok 4.2 s, 63 tok/s"."""
    head = f"{_count(ended.count, total)} {clock(elapsed_s)} {ended.cell} round {ended.number} {ended.status}"
    if ended.status == "unsupported":
        return f"{head}: {ended.detail}"
    stop = ": " if ended.status == "failed" else ", "
    return f"{head} {duration(ended.seconds)}{stop if ended.detail else ''}{ended.detail}"


def now(snapshot: Snapshot, activity: Activity) -> str:
    """One of its activities, as "[ 13/65] 2:05 demo/… round 2 of 3: measuring, 0:42 of about 1:05"."""
    label = activity.round
    if label is None:
        passed = f", {clock(activity.seconds)} so far" if activity.seconds >= 1 else ""
        return f"{clock(snapshot.elapsed_s)} {activity.text}{passed}"
    head = f"{_count(snapshot.done + 1, snapshot.total)} {clock(snapshot.elapsed_s)} {label.title} {which(label)}"
    passed = " so far" if activity.expected_s is None and activity.text.endswith(_LEFT) else ""
    return f"{head}: {', '.join(filter(None, (activity.text, f'{of_expected(activity)}{passed}')))}"


def which(label: RoundLabel) -> str:
    return f"round {label.number} of {label.of}"


def of_expected(activity: Activity) -> str:
    """The time of its round, of what that is expected to take."""
    expected = "" if activity.expected_s is None else f" of about {clock(activity.expected_s)}"
    return f"{clock(activity.round_s)}{expected}"


def so_far(activity: Activity) -> str:
    """How long it has gone on, told apart from the time left where its text ends in that."""
    return f"{clock(activity.seconds)}{' so far' if activity.text.endswith(_LEFT) else ''}"


def _count(count: int, total: int) -> str:
    return f"[{count:>{len(str(total))}}/{total}]"
