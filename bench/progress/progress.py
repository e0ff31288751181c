"""What a person sees while a suite runs: a live view in a terminal, plain lines in a pipe and in CI.

The lines have no control characters: one for each round that is over, one when something else begins that
takes its time, and one every 30 s in which there was none. Quiet leaves only what went wrong.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from bench.contract.record import Result
from bench.progress import snapshot as scene
from bench.progress.eta import Alike, Pace, clock
from bench.progress.snapshot import Finished, Round, Scene, printable

if TYPE_CHECKING:
    from typing import Self

    from bench.progress.terminal import Screen

_SILENCE_S = 30.0  # the longest in a pipe: some CI ends what says nothing
_RECENT = 5
Report = Callable[[str], None]


class Progress:
    """`line` is said once, `warn` in quiet too; `doing` is what happens now, as "subject: detail".

    `begin`, `starts` and `ends` frame the rounds. `figure` gives a finished one's main figure as text,
    `silence_s` is the longest that a pipe hears nothing.
    """

    def __init__(
        self, *, quiet: bool = False, figure: Callable[[Result], str] = lambda _: "", silence_s: float = _SILENCE_S
    ) -> None:
        self._quiet, self._figure, self._silence_s = quiet, figure, silence_s
        self._began = self._doing_began = self._round_began = time.monotonic()
        self._doing, self._subject = "starting", ""
        self._round: Round | None = None
        self._rounds, self._several, self._kept = 0, False, 0
        self._counts: Counter[str] = Counter()
        self._recent: deque[Finished] = deque(maxlen=_RECENT)
        self._refused: set[str] = set()
        self._pace = Pace()
        self._left_s: float | None = None
        self._screen: Screen | None = None
        self._printing, self._over = threading.Lock(), threading.Event()
        self._printed = self._began
        self._ticker = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> Self:
        if self._quiet:
            return self
        if _drawable():
            from bench.progress.terminal import Screen

            self._screen = Screen(self.scene)
            self._screen.start()
        else:
            self._ticker.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        try:
            if kind is KeyboardInterrupt:
                done = self._kept + self._done
                count = f" ({done} round{'s' if done != 1 else ''})" if self._rounds else ""
                self.warn(f"stopped; what is finished is kept{count}, run the same command to go on")
        finally:
            if self._screen is not None:
                screen, self._screen = self._screen, None
                screen.stop()

    @property
    def spent_s(self) -> float:
        return time.monotonic() - self._began

    @property
    def spent(self) -> str:
        return clock(self.spent_s)

    def line(self, text: str) -> None:
        if not self._quiet:
            self._say(text)

    def warn(self, text: str) -> None:
        """What went wrong, said at once."""
        self._say(text, "red")

    def doing(self, text: str) -> None:
        """In a pipe a new subject is said at once; within a round only the next line of silence says it."""
        text, subject = printable(text), text.partition(": ")[0]
        if text == self._doing:
            return
        self._doing, self._doing_began = text, time.monotonic()
        if self._screen is None and self._round is None and subject != self._subject:
            self.line(scene.now(self.scene()))
        self._subject = subject

    def begin(self, rounds: Sequence[Round], kept: int, before: Sequence[tuple[Alike, float]]) -> None:
        """What is to run; `kept` rounds are recorded already, and what some took `before` is known."""
        self._rounds, self._kept = self._done + len(rounds), self._kept + kept
        self._several = len({one.device for one in rounds}) > 1
        self._pace = Pace([one.alike for one in rounds])
        for alike, seconds in before:
            self._pace.known(alike, seconds)
        self._left_s = self._pace.left_s()

    def starts(self, one: Round) -> None:
        self._doing, self._subject = "", ""
        self._round, self._round_began = one, time.monotonic()

    def ends(self, result: Result) -> None:
        """The round that had been started is over."""
        assert self._round is not None  # noqa: S101  (it was started)
        one, seconds = self._round, time.monotonic() - self._round_began
        self._pace.done(one.alike, seconds, failed=result.status == "failed")
        self._counts[result.status] += 1
        self._round, self._doing, self._left_s = None, "", self._pace.left_s()
        said = printable(self._figure(result) if result.status == "ok" else result.reason)
        where = f" on {one.device}" if self._several else ""
        cell = printable(f"{one.title}{where}")
        ended = Finished(cell, one.number, self._done, result.status, seconds, said)
        self._tell(ended)

    def _tell(self, ended: Finished) -> None:
        text = scene.finished(ended, self._rounds, self.spent_s)
        if ended.status == "failed":
            self.warn(text)
        elif ended.status == "ok":
            self._recent.append(ended)
        told_already = ended.cell in self._refused  # the other rounds of a cell that cannot run cannot either
        if ended.status == "unsupported":
            self._refused.add(ended.cell)
        if self._screen is None and ended.status != "failed" and not told_already:
            self.line(text)

    @property
    def _done(self) -> int:
        return sum(self._counts.values())

    def scene(self) -> Scene:
        """All that is known now."""
        now, one = time.monotonic(), self._round
        round_s = now - self._round_began if one else 0.0
        expected_s = self._pace.expected_s(one.alike[:-1]) if one else None  # of any load would be a guess
        left_s = self._left_s
        if left_s is not None and one is not None:
            left_s -= min(round_s, self._pace.expected_s(one.alike) or 0.0)
        return Scene(
            now - self._began,
            self._doing,
            now - self._doing_began,
            one,
            round_s,
            expected_s,
            self._rounds,
            self._kept,
            dict(self._counts),
            left_s,
            tuple(self._recent),
        )

    def _say(self, text: str, style: str = "") -> None:
        text = printable(text)
        with self._printing:
            self._printed = time.monotonic()
            if self._screen is not None:
                self._screen.line(text, style)
            else:
                print(text, file=sys.stderr, flush=True)  # noqa: T201  (this is the terminal)

    def _tick(self) -> None:
        """In a pipe: break the silence."""
        wait_s = self._silence_s
        while not self._over.wait(wait_s):
            wait_s = self._printed + self._silence_s - time.monotonic()
            if wait_s <= 0:
                wait_s = self._silence_s
                if self._doing or self._round:
                    self.line(scene.now(self.scene()))


def _drawable() -> bool:
    """Whether stderr is a terminal that can move its cursor, before a person."""
    watched = os.environ.get("CI", "").lower() in ("", "0", "false")
    return watched and sys.stderr.isatty() and os.environ.get("TERM", "") not in ("", "dumb", "unknown")
