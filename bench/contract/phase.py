"""What a worker is doing, line by line in a file that its parent follows: a phase, or step n of N and when it ends.

A variable of the environment names the file, so that a program which a worker starts reports there too; without it
nothing is written. A line is its text and, where that is known, a tab and the expected end in seconds of
CLOCK_MONOTONIC, which all processes share.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sized
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from typing import Self

VARIABLE = "LLM_BENCH_PHASE"
_EVERY_S = 0.5  # at most: a line takes some 0.05 ms
_LEAST_S = 2.0  # of steps, before their pace says anything

_Item = TypeVar("_Item")


def begin(text: str) -> None:
    """Another phase: its line is written at once."""
    _write(text, None)


class Pace:
    """How long the steps ahead will take, at the pace of the later half of those that are done.

    The first ones are often slower, and a mean of all would never forget it.
    """

    def __init__(self) -> None:
        self._times_s: list[float] = []
        self._counts: list[float] = []

    def add(self, now_s: float, done: float) -> None:
        """So many steps were done then, no fewer than before."""
        self._times_s.append(now_s)
        self._counts.append(done)

    def remaining_s(self, total: float) -> float | None:
        """From the last time added; None while that is not known."""
        if not self._counts:
            return None
        done, now_s = self._counts[-1], self._times_s[-1]
        if (first := bisect_right(self._counts, (self._counts[0] + done) / 2) - 1) < 0:
            return None
        steps, passed_s = done - self._counts[first], now_s - self._times_s[first]
        if steps <= 0 or now_s - self._times_s[0] < _LEAST_S:
            return None
        return max(0.0, total - done) * passed_s / steps


class Steps:
    """`total` steps of one phase. `text` has {n} for the step at hand, from 1, or {done}, and {total}.

    As in "layer {n} of {total}", of which each line is written, and "scoring: {done:,} of {total:,} tokens", of which
    two a second are, and always the last one.
    """

    def __init__(self, text: str, total: int) -> None:
        self._text, self._total, self._pace = text, total, Pace()
        self._least_s = 0.0 if "{n" in text else _EVERY_S
        self._done, self._written_s = 0.0, -math.inf
        self._paced_s = -math.inf
        self._ends_s: float | None = None
        self._is_followed = VARIABLE in os.environ

    def add(self, count: float, detail: str = "") -> None:
        """So many more are done."""
        self.at(self._done + count, detail)

    def at(self, done: float, detail: str = "") -> None:
        """So many are done, the parts of one maybe at very different paces: the time left is told from whole ones."""
        self._done = done
        if not self._is_followed:
            return
        now_s = time.monotonic()
        if now_s - self._written_s < self._least_s and done < self._total:
            return
        self._written_s = now_s
        if done == int(done) and now_s - self._paced_s >= _EVERY_S:
            self._paced_s = now_s
            self._pace.add(now_s, done)
            remaining_s = self._pace.remaining_s(self._total)
            self._ends_s = None if remaining_s is None else now_s + remaining_s
        text = self._text.format(n=min(int(done) + 1, self._total), done=int(done), total=self._total)
        _write(f"{text} ({detail})" if detail else text, self._ends_s)


def each(items: Iterable[_Item], text: str, total: int | None = None) -> Iterator[_Item]:
    """The items, each one a step; `total` where they have no length."""
    if total is None:
        total = len(items) if isinstance(items, Sized) else 0
    steps, done = Steps(text, total), 0
    for done, item in enumerate(items, start=1):
        steps.at(done - 1)
        yield item
    steps.at(done)


class Bar:
    """In place of a library's tqdm: its steps become those of a phase. `text` as of Steps, "" for a bar left out."""

    text = ""

    def __init__(self, iterable: Iterable[Any] | None = None, *_: Any, total: float | None = None, **__: Any) -> None:
        if total is None:
            total = len(iterable) if isinstance(iterable, Sized) else 0
        self._items, self.n = iterable, 0.0
        self._steps = Steps(self.text, int(total)) if self.text and total else None

    def __iter__(self) -> Iterator[Any]:
        for item in self._items or ():
            self.update(0)
            yield item
            self.update(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        """What else a bar can do (set_description, close, refresh, …) is nothing here."""
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *_, **__: None

    def update(self, n: float | None = 1) -> None:
        self.n += 1 if n is None else n
        if self._steps is not None:
            self._steps.at(self.n)


def bar(text: str) -> type[Bar]:
    """A Bar of this text, for the place of a library's tqdm."""
    return type("Bar", (Bar,), {"text": text})


def _write(text: str, ends_s: float | None) -> None:
    """Append the line. In silence where that fails: a full disk is for the answer to tell."""
    if file := os.environ.get(VARIABLE):
        end = "" if ends_s is None else f"\t{ends_s:.1f}"
        with contextlib.suppress(OSError), Path(file).open("a", encoding="utf-8") as out:
            out.write(f"{' '.join(text.split())}{end}\n")
