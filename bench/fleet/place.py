"""Which device does what next: pure, so that a plan can be drawn and tested without a cluster.

What no clock reads goes to any idle device of a kind that can do it, the longest first. What is timed stays on one
device of its kind, its home, with the node to itself, so that recipes compare.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

Key = tuple[str, ...]
_Group = tuple[bool, bool, frozenset[str]]  # timed, a build, of these kinds


@dataclass(frozen=True)
class Work:
    """One thing to do, on a device of one of `kinds`: a round, or a build that rounds need.

    `needs`: work that has to succeed before it; `after`: work that has to end before it, however it ends.
    """

    key: Key
    kinds: frozenset[str]
    is_timed: bool = False
    is_build: bool = False
    expected_s: float = 1.0
    needs: tuple[Key, ...] = ()
    after: tuple[Key, ...] = ()


@dataclass(frozen=True)
class Place:
    """One device of a node; `is_home`: the one of its kind that times."""

    name: str
    node: str
    kind: str
    is_home: bool = False


class Board:
    """What waits, what may begin and what runs. Work whose needs are not on the board has them already."""

    def __init__(self, works: Iterable[Work], places: Iterable[Place] = ()) -> None:
        self._works = {work.key: work for work in works}
        self._rank = {key: number for number, key in enumerate(self._works)}
        self._left = {
            work.key: {key for key in (*work.needs, *work.after) if key in self._works} for work in self._works.values()
        }
        self._dependents: dict[Key, list[Key]] = defaultdict(list)
        for key, before in self._left.items():
            for other in before:
                self._dependents[other].append(key)
        self._ready: dict[_Group, list[tuple[float, int, Key]]] = defaultdict(list)
        self._running: dict[Key, Place] = {}
        self._on_node: dict[str, set[Key]] = defaultdict(set)
        self._waiting: Counter[_Group] = Counter()
        self._for_timed = self._builds_for_timed()
        self._unbuilt = Counter(kind for key in self._for_timed for kind in self._works[key].kinds)
        for key, before in self._left.items():
            self._waiting[_group(self._works[key])] += 1
            if not before:
                self._push(key)
        self._homes: dict[str, list[Place]] = {}
        self._nodes: dict[str, set[str]] = {}
        self.set_places(places)

    def set_places(self, places: Iterable[Place]) -> None:
        """The devices that there are from now on."""
        self._homes, self._nodes = defaultdict(list), defaultdict(set)
        for place in places:
            self._nodes[place.kind].add(place.node)
            if place.is_home:
                self._homes[place.node].append(place)

    @property
    def is_done(self) -> bool:
        return not self._works

    def take(self, place: Place) -> Work | None:
        """What an idle device does next, which is then running; None where nothing is for it now."""
        on_node = self._on_node[place.node]
        if any(self._works[key].is_timed for key in on_node):
            return None
        if homes := [home for home in self._homes.get(place.node, ()) if self._may_time(home)]:
            return self._pop(place, is_timed=True, is_build=False) if place in homes and not on_node else None
        return self._pop(place, is_timed=False, is_build=True) or self._pop(place, is_timed=False, is_build=False)

    def end(self, key: Key) -> None:
        """The work has succeeded, or failed where nothing is to follow from that: others may begin."""
        work = self._forget(key)
        if work is None:
            return
        for other in self._dependents.pop(key, ()):
            before = self._left.get(other)
            if before is not None:
                before.discard(key)
                if not before:
                    self._push(other)

    def fail(self, key: Key) -> list[Work]:
        """The work has failed: what needed it, which is off the board, in the order of needs."""
        dropped: list[Work] = []
        pending = [other for other in self._dependents.get(key, ()) if self._needs(other, key)]
        self.end(key)
        for other in pending:
            if (work := self._works.get(other)) is not None:
                dropped += [work, *self.fail(other)]
        return dropped

    def put_back(self, key: Key) -> None:
        """What ran it is gone: it waits again."""
        if (place := self._running.pop(key, None)) is not None:
            self._on_node[place.node].discard(key)
            self._waiting[_group(self._works[key])] += 1
            self._push(key)

    def without_place(self) -> list[Work]:
        """The work that no device here can do."""
        return [
            work for key, work in self._works.items() if key not in self._running and not work.kinds & set(self._nodes)
        ]

    def _needs(self, key: Key, other: Key) -> bool:
        return key in self._works and other in self._works[key].needs

    def _may_time(self, home: Place) -> bool:
        """Whether the home's timed rounds may begin: all they need is built, and nobody waits for this node alone."""
        if not self._waiting_of(home.kind, is_timed=True) or self._unbuilt[home.kind]:
            return False
        only_here = [kind for kind, nodes in self._nodes.items() if nodes == {home.node}]
        return not any(self._waiting_of(kind, is_timed=False) for kind in only_here)

    def _waiting_of(self, kind: str, *, is_timed: bool) -> int:
        return sum(n for (timed, _, kinds), n in self._waiting.items() if timed is is_timed and kind in kinds)

    def _builds_for_timed(self) -> set[Key]:
        needed: set[Key] = set()
        pending = [key for work in self._works.values() if work.is_timed for key in self._left[work.key]]
        while pending:
            if (key := pending.pop()) not in needed:
                needed.add(key)
                pending += self._left[key]
        return needed

    def _push(self, key: Key) -> None:
        """Timed rounds keep their order; of others the longest comes first."""
        work = self._works[key]
        first = 0.0 if work.is_timed else -work.expected_s
        heapq.heappush(self._ready[_group(work)], (first, self._rank[key], key))

    def _pop(self, place: Place, *, is_timed: bool, is_build: bool) -> Work | None:
        heaps = []
        for (timed, build, kinds), heap in self._ready.items():
            if timed is is_timed and build is is_build and place.kind in kinds:
                while heap and heap[0][2] not in self._works:
                    heapq.heappop(heap)
                heaps += [heap] if heap else []
        if not heaps:
            return None
        key = heapq.heappop(min(heaps))[2]
        self._running[key] = place
        self._on_node[place.node].add(key)
        work = self._works[key]
        self._waiting[_group(work)] -= 1
        return work

    def _forget(self, key: Key) -> Work | None:
        work = self._works.pop(key, None)
        if work is None:
            return None
        if (place := self._running.pop(key, None)) is None:
            self._waiting[_group(work)] -= 1
        else:
            self._on_node[place.node].discard(key)
        self._left.pop(key, None)
        if key in self._for_timed:
            self._unbuilt.subtract(work.kinds)
        return work


def _group(work: Work) -> _Group:
    return work.is_timed, work.is_build, work.kinds


@dataclass(frozen=True)
class Slot:
    """When and where work would run, in seconds from now."""

    place: str
    begin_s: float
    end_s: float


def schedule(works: Sequence[Work], places: Sequence[Place]) -> Mapping[Key, Slot]:
    """The plan of a run in which everything takes as long as expected; work that no place can do is left out."""
    board = Board(works, places)
    by_key = {work.key: work for work in works}
    slots: dict[Key, Slot] = {}
    ends: list[tuple[float, int, Key, Place]] = []
    idle, waiting = list(places), list[Place]()
    now_s = 0.0
    while True:
        for place in idle:
            if (work := board.take(place)) is None:
                waiting.append(place)
                continue
            slots[work.key] = Slot(place.name, now_s, now_s + work.expected_s)
            heapq.heappush(ends, (now_s + work.expected_s, len(slots), work.key, place))
        if not ends:
            return slots
        idle, now_s = [], ends[0][0]
        nodes, is_plain = set(), True  # a plain round's end changes nothing for other nodes
        while ends and ends[0][0] == now_s:
            _, _, key, place = heapq.heappop(ends)
            idle.append(place)
            nodes.add(place.node)
            is_plain = is_plain and not (by_key[key].is_build or by_key[key].is_timed)
            board.end(key)
        idle += [place for place in waiting if place.node in nodes or not is_plain]
        again = set(idle)
        waiting = [place for place in waiting if place not in again]
