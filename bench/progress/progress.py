"""The progress of a run: a live view in a terminal, plain lines in a pipe and in CI.

The lines have no control characters: one per finished round, one when another activity begins, and one after 30 s
without any. Quiet prints failures only.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import TYPE_CHECKING

from bench.contract.errors import Interrupted
from bench.contract.outside import printable, scrubbed
from bench.contract.record import Result
from bench.progress import snapshot, stderr
from bench.progress.eta import EtaEstimator, SimilarityKeys, clock
from bench.progress.snapshot import Activity, Finished, RoundLabel, Snapshot

if TYPE_CHECKING:
    from typing import Self

    from bench.progress.terminal import LiveView

_SILENCE_S = 30.0  # the longest in a pipe: some CI ends what says nothing
_RECENT = 5


@dataclass
class _Current:
    """What goes on in one thread, since when (monotonic seconds); `subject` is what a pipe was told of it."""

    text: str = ""
    subject: str = ""
    began: float = field(default_factory=time.monotonic)
    round: RoundLabel | None = None
    round_began: float = 0.0


class Progress:
    """`line` prints a line, `warn` in quiet too; `doing` says what happens now, as "subject: detail".

    `begin`, `start_round` and `end_round` frame the rounds. What threads do at the same time is told by `activity`.
    `figure` gives a finished round's main figure as text, `silence_s` is the longest that a pipe hears nothing.
    """

    def __init__(
        self, *, quiet: bool = False, figure: Callable[[Result], str] = lambda _: "", silence_s: float = _SILENCE_S
    ) -> None:
        self._quiet, self._figure, self._silence_s = quiet, figure, silence_s
        self._began = time.monotonic()
        self._main = _Current("starting")
        self._others: dict[int, _Current] = {}  # in the order in which they began
        self._rounds, self._several_devices, self._recorded = 0, False, 0
        self._counts: Counter[str] = Counter()
        self._recent: deque[Finished] = deque(maxlen=_RECENT)
        self._unsupported: set[str] = set()
        self._eta = EtaEstimator()
        self._remaining_s: float | None = None
        self._view: LiveView | None = None
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._printed = self._began
        self._ticker = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> Self:
        if self._quiet:
            return self
        if _drawable():
            from bench.progress.terminal import LiveView

            self._view = LiveView(self.snapshot)
            self._view.start()
        else:
            self._ticker.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        try:
            if isinstance(error, KeyboardInterrupt):
                done = self._recorded + self._done
                count = f" ({done} round{'s' if done != 1 else ''})" if self._rounds else ""
                self.warn(f"stopped; what is finished is kept{count}, run the same command to go on")
                if isinstance(error, Interrupted):
                    error.is_reported = True
        finally:
            if self._view is not None:
                view, self._view = self._view, None
                with contextlib.suppress(OSError):
                    view.stop()

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._began

    @property
    def elapsed(self) -> str:
        return clock(self.elapsed_s)

    def line(self, text: str) -> None:
        if not self._quiet:
            self._print(text)

    def warn(self, text: str) -> None:
        """What went wrong, printed at once."""
        self._print(text, "red")

    def doing(self, text: str) -> None:
        """In a pipe a new subject is printed at once; within a round only with the next line that breaks a silence."""
        self._do(self._main, text)

    @contextlib.contextmanager
    def activity(self, label: RoundLabel | None = None) -> Iterator[Callable[[str], None]]:
        """Of a thread: what it is given says what goes on there, until the block ends; in a round where it has one."""
        current = _Current(round=None if label is None else replace(label, title=_shown(label.title)))
        current.round_began = current.began
        with self._lock:
            self._others[id(current)] = current
        try:
            yield functools.partial(self._do, current)
        finally:
            with self._lock:
                del self._others[id(current)]

    def _do(self, current: _Current, text: str) -> None:
        text, subject = _shown(text), text.partition(": ")[0]
        if text == current.text:
            return
        current.text = text
        if not subject or subject != current.subject:  # the steps of one thing are timed together
            current.began = time.monotonic()
        if not text:
            current.subject = ""
            return
        if self._view is None and current.round is None and subject != current.subject:
            self.line(snapshot.now(self.snapshot(), self._activity(current)))
        current.subject = subject

    def begin(
        self, rounds: Sequence[RoundLabel], recorded: int, durations: Sequence[tuple[SimilarityKeys, float]]
    ) -> None:
        """What is to run; `recorded` rounds are recorded already, some of them with their duration in seconds."""
        self._rounds, self._recorded = self._done + len(rounds), self._recorded + recorded
        self._several_devices = len({label.device for label in rounds}) > 1
        at_once = {label.similarity_keys: label.at_once for label in rounds}
        self._eta = EtaEstimator((label.similarity_keys for label in rounds), at_once)
        for keys, seconds in durations:
            self._eta.add_recorded(keys, seconds)
        self._remaining_s = self._eta.remaining_s()

    def recorded(self, labels: Sequence[RoundLabel]) -> None:
        """Rounds that were to run, and that another run has recorded."""
        self._rounds, self._recorded = self._rounds - len(labels), self._recorded + len(labels)
        for label in labels:
            self._eta.drop(label.similarity_keys)
        self._remaining_s = self._eta.remaining_s()

    def start_round(self, label: RoundLabel) -> None:
        self._main = _Current(round=replace(label, title=_shown(label.title)), round_began=time.monotonic())

    def end_round(self, label: RoundLabel, result: Result, seconds: float | None = None) -> None:
        """A round is over that took so long; without `seconds` the one that was started last."""
        if seconds is None:
            seconds = time.monotonic() - self._main.round_began
            self._main = _Current()
        self._eta.finish(label.similarity_keys, seconds, failed=result.status == "failed")
        self._counts[result.status] += 1
        self._remaining_s = self._eta.remaining_s()
        detail = _shown(self._figure(result) if result.status == "ok" else result.reason)
        cell = _shown(f"{label.title}{f' on {label.device}' if self._several_devices else ''}")
        ended = Finished(cell, label.number, self._done, result.status, seconds, detail)
        text = snapshot.finished(ended, self._rounds, self.elapsed_s)
        if ended.status == "failed":
            self.warn(text)
        elif ended.status == "ok":
            self._recent.append(ended)
        is_repeated = ended.cell in self._unsupported  # the other rounds of a cell that cannot run cannot either
        if ended.status == "unsupported":
            self._unsupported.add(ended.cell)
        if self._view is None and ended.status != "failed" and not is_repeated:
            self.line(text)

    @property
    def _done(self) -> int:
        return sum(self._counts.values())

    def snapshot(self) -> Snapshot:
        """The state now."""
        with self._lock:
            others = tuple(self._others.values())
        current = [*others, *([self._main] if self._main.text or self._main.round else [])]
        activities = tuple(map(self._activity, current))
        passed_s = sum(
            min(activity.round_s, self._eta.expected_s(label.similarity_keys) or 0.0) / label.at_once
            for activity in activities
            if (label := activity.round) is not None
        )
        return Snapshot(
            time.monotonic() - self._began,
            activities,
            self._rounds,
            self._recorded,
            dict(self._counts),
            None if self._remaining_s is None else self._remaining_s - passed_s,
            tuple(self._recent),
        )

    def _activity(self, current: _Current) -> Activity:
        now, label = time.monotonic(), current.round
        if label is None:
            return Activity(current.text, now - current.began)
        expected_s = self._eta.expected_s(label.similarity_keys[:-1])  # of any load would be a guess
        return Activity(current.text, now - current.began, label, now - current.round_began, expected_s)

    def _print(self, text: str, style: str = "") -> None:
        text = _shown(text)
        with self._lock:
            self._printed = time.monotonic()
            if self._view is not None:
                with contextlib.suppress(OSError):  # the terminal is gone
                    self._view.line(text, style)
            else:
                stderr.line(text)

    def _tick(self) -> None:
        """In a pipe: break the silence."""
        wait_s = self._silence_s
        while not self._ended.wait(wait_s):
            wait_s = self._printed + self._silence_s - time.monotonic()
            if wait_s <= 0:
                wait_s = self._silence_s
                state = self.snapshot()
                for activity in state.activities:
                    self.line(snapshot.now(state, activity))


def _shown(text: str) -> str:
    """As a terminal may have it: no secret, and nothing that moves the cursor or rings a bell."""
    return printable(scrubbed(text))


def _drawable() -> bool:
    """Whether stderr is a terminal that can move its cursor, and a person watches it."""
    watched = os.environ.get("CI", "").lower() in ("", "0", "false")
    return watched and sys.stderr.isatty() and os.environ.get("TERM", "") not in ("", "dumb", "unknown")
