"""The view of a run in a terminal, drawn in place once a second.

A faster redraw would load the measurement: one takes 1.6 ms of a core of an AMD EPYC, 0.16 % at this rate.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.live import Live
from rich.text import Text

from bench.progress.eta import clock, duration
from bench.progress.snapshot import Activity, Finished, Snapshot, of_expected, so_far, which

_PER_S = 1
_BAR, _LEAST_BAR = 40, 5  # columns
_STYLES = {"ok": "green", "failed": "bold red", "unsupported": "yellow"}
_UNICODE, _ASCII = ("━", "─", "…"), ("#", "-", "~")  # done, to do, left out


class LiveView:
    """The live part of the terminal, from `start` to `stop`; `snapshot` is called whenever it is drawn."""

    def __init__(self, snapshot: Callable[[], Snapshot]) -> None:
        self._snapshot = snapshot
        self._console = Console(stderr=True, force_terminal=True, markup=False, highlight=False, emoji=False)
        encoded = (sys.stderr.encoding or "").lower().replace("-", "").startswith("utf")
        self._signs = _UNICODE if encoded else _ASCII
        self._live = Live(
            console=self._console,
            get_renderable=self._drawn,
            refresh_per_second=_PER_S,
            transient=True,
            redirect_stdout=False,
        )

    def start(self) -> None:
        self._live.start(refresh=True)

    def stop(self) -> None:
        """Clear it away and show the cursor again, whatever a second Ctrl-C cuts short."""
        try:
            self._live.stop()
        finally:
            self._console.show_cursor(show=True)

    def line(self, text: str, style: str = "") -> None:
        """A line above the view that stays, broken between words where it is too long."""
        self._console.print(text, style=style or None)

    def _drawn(self) -> Text:
        size = self._console.size
        drawn = lines(self._snapshot(), size.width - 1, size.height - 1, self._signs)
        return Text("\n", no_wrap=True, overflow="crop").join(drawn)


def lines(snapshot: Snapshot, width: int, height: int, signs: Sequence[str] = _UNICODE) -> list[Text]:
    """In at most `width` columns and `height` lines: rounds that are over, what runs, the totals."""
    cut = signs[2]
    activities = [line for activity in snapshot.activities for line in _now(snapshot, activity, width, cut)]
    below = [*activities, *(_totals(snapshot, width, signs) if snapshot.total else [])][:height]
    room = height - len(below)
    above = [*_recent(snapshot.recent[-room:], width, cut)] if room > 0 else []
    return [*above, *below]


def _recent(rounds: Sequence[Finished], width: int, cut: str) -> Iterator[Text]:
    times = max((len(duration(ended.seconds)) for ended in rounds), default=0)
    widest = max((len(ended.detail) for ended in rounds), default=0)
    for ended in rounds:
        rest = f" {duration(ended.seconds):>{times}}  {ended.detail:>{widest}}{'  ' if widest else ''}"
        room = width - len(ended.status) - len(rest)
        whole = f"{ended.cell} round {ended.number}"
        name = whole if cell_len(whole) <= room else shortened(ended.cell, room, cut)
        line = Text.assemble((ended.status, _STYLES[ended.status]), rest, (name, "dim"))
        line.truncate(width)
        yield line


def _now(snapshot: Snapshot, activity: Activity, width: int, cut: str) -> Iterator[Text]:
    label = activity.round
    if label is None:
        parts = [activity.text, *([so_far(activity)] if activity.text else [])]
        if not snapshot.total:
            parts = [activity.text, clock(snapshot.elapsed_s)]
        yield from (Text(line) for line in packed(parts, width, cut))
        return
    yield from (Text(line, "bold") for line in packed([label.title, label.device, which(label)], width, cut))
    between = ", " if ": " in activity.text else " "
    phase = f"{activity.text}{between}{so_far(activity)}" if activity.text else ""
    yield from (Text(line) for line in packed([phase, f"round {of_expected(activity)}"], width, cut))


def _totals(snapshot: Snapshot, width: int, signs: Sequence[str]) -> Iterator[Text]:
    done, total = snapshot.done, snapshot.total
    yield _bar(done, total, f" {done} of {total} rounds done", width, signs)
    counts = [f"{n} {status}" for status in _STYLES if (n := snapshot.counts.get(status, 0))]
    recorded = [f"{snapshot.recorded} recorded before"] if snapshot.recorded else []
    left = "time left not known yet" if snapshot.remaining_s is None else f"about {clock(snapshot.remaining_s)} left"
    times = [f"{clock(snapshot.elapsed_s)} so far", *([left] if done < total else [])]
    yield from (Text(line) for line in packed([*counts, *recorded, *times], width, signs[2]))


def _bar(done: int, total: int, text: str, width: int, signs: Sequence[str]) -> Text:
    size = min(_BAR, width - len(text))
    if size < _LEAST_BAR:
        return Text(shortened(text.strip(), width, signs[2]))
    full = size * done // total
    return Text.assemble((signs[0] * full, "green"), (signs[1] * (size - full), "dim"), text)


def packed(parts: Sequence[str], width: int, cut: str) -> list[str]:
    """The parts that say something, with commas between, on as few lines as `width` allows."""
    lines: list[str] = []
    for part in filter(None, parts):
        if lines and cell_len(lines[-1]) + 2 + cell_len(part) <= width:
            lines[-1] += f", {part}"
        else:
            lines.append(shortened(part, width, cut))
    return lines


def shortened(text: str, width: int, cut: str) -> str:
    """At most `width` columns of the text, its middle left out: a title tells by both its ends."""
    if cell_len(text) <= width:
        return text
    if width <= len(cut):
        return set_cell_size(text, max(width, 0))
    head = (width - len(cut)) // 2
    tail = width - len(cut) - head
    last = text[len(text) - tail :]
    while cell_len(last) > tail:
        last = last[1:]
    return f"{set_cell_size(text, head).rstrip()}{cut}{last}"
