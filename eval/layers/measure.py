"""The divergence from a model's own predictions of the same model with some of its layers replaced, by window.

KL(model || replaced) is log sum p exp(d) - sum p d, with p the model's probabilities and d the change of the logits:
nothing large cancels in it, and so it is as exact in float32 as the logits are. The model's logits are kept on the
disk, 4 bytes a scored token and vocabulary entry.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.contract import phase
from bench.contract.errors import UserError
from eval.layers.network import Network
from eval.layers.units import Unit
from eval.text.windows import Window

_ROWS = 128  # of logits that are compared at a time
_LOGITS, _DONE = "logits.f32", "done.jsonl"


@dataclass
class Meter:
    """`measure` compares with the predictions of `network` over `windows`, which `work` gets."""

    network: Network
    windows: Sequence[Window]
    work: Path
    expected: Any = field(init=False)
    normalizers: list[Any] = field(init=False)

    def __post_init__(self) -> None:
        """Compute the model's own logits; UserError where they are not finite, or the disk is full."""
        self.work.mkdir(parents=True, exist_ok=True)
        phase.begin("the unquantized model's predictions")
        self.normalizers = []
        for number, rows in enumerate(self._rows({})):
            if not number:
                self._open(rows.shape[1])
            first, last = self._span(number)
            self.expected[first:last] = rows.cpu().numpy()
            self.normalizers.append(rows.double().logsumexp(dim=1))
            if not self.normalizers[-1].isfinite().all():
                raise UserError("logits of the unquantized model are not finite: its weights are damaged")

    def measure(self, layers: Mapping[str, Any]) -> list[float]:
        """Sums of KL over the scored tokens of each window, in nats; UserError where logits are not finite."""
        import torch

        sums = []
        for number, rows in enumerate(self._rows(layers)):
            first, last = self._span(number)
            expected = torch.from_numpy(self.expected[first:last]).to(rows.device)
            parts = zip(rows.split(_ROWS), expected.split(_ROWS), self.normalizers[number].split(_ROWS), strict=True)
            total = sum(float(divergence(*part).sum(dtype=torch.float64)) for part in parts)
            if not math.isfinite(total):
                raise UserError(f"logits are not finite with {next(iter(layers), 'no layer')} quantized alone")
            sums.append(max(total, 0.0))
        return sums

    def close(self) -> None:
        (self.work / _LOGITS).unlink(missing_ok=True)

    def _rows(self, layers: Mapping[str, Any]) -> Iterator[Any]:
        """Logits of each window's scored tokens, [tokens, vocabulary]."""
        windows = iter(self.windows)
        for logits in self.network.logits(layers):
            for own, window in zip(logits, windows, strict=False):
                yield own[window.first - 1 : len(window.ids) - 1].float()

    def _span(self, number: int) -> tuple[int, int]:
        first = sum(window.scored for window in self.windows[:number])
        return first, first + self.windows[number].scored

    def _open(self, vocab: int) -> None:
        import numpy as np

        shape = (sum(window.scored for window in self.windows), vocab)
        size, free = 4 * shape[0] * shape[1], shutil.disk_usage(self.work).free
        if size > free:
            raise UserError(
                f"the unquantized model's predictions take {size / 2**30:.2f} GiB and the cache's disk has "
                f"{free / 2**30:.2f} GiB free: lower `tokens`, or move LLM_BENCH_CACHE"
            )
        self.expected = np.memmap(self.work / _LOGITS, np.float32, "w+", shape=shape)


def divergence(logits: Any, expected: Any, normalizer: Any) -> Any:
    """KL of each row in nats, of logits from `expected` ones with this log of the sum of their exponentials."""
    share = (expected - normalizer.to(expected.dtype)[:, None]).exp()
    change = logits - expected
    change -= (share * change).sum(dim=1, keepdim=True) / share.sum(dim=1, keepdim=True)
    return (share * change.expm1()).sum(dim=1).log1p()


def one_at_a_time(
    meter: Meter, units: Sequence[Unit], layers: Callable[[Unit], Mapping[str, Any]], key: str
) -> tuple[dict[str, list[float]], int]:
    """Each unit's sums of KL by window, with no other layer replaced; and how many were there from before.

    Units come by their `start`; `layers` makes of one the modules that take its layers' place. What is done is in the
    work folder, as far as it is of the same `key`.
    """
    file = meter.work / _DONE
    done = _read(file, key)
    resumed = sum(unit.name in done for unit in units)
    left = [unit for unit in units if unit.name not in done]
    steps = phase.Steps("layer {n} of {total}", len(units))
    with file.open("a", encoding="utf-8") as out:
        for number, unit in enumerate(left, start=resumed):
            steps.at(number, unit.name)
            meter.network.advance(unit.start)
            began = time.perf_counter()
            sums = meter.measure(layers(unit))
            line = {"key": key, "unit": unit.name, "window_kl": sums, "s": time.perf_counter() - began}
            out.write(f"{json.dumps(line)}\n")
            out.flush()
            done[unit.name] = sums
    steps.at(len(units))
    return {unit.name: done[unit.name] for unit in units}, resumed


def _read(file: Path, key: str) -> dict[str, list[float]]:
    """What an interrupted run has done; its last line may be broken off, and is then ended."""
    done: dict[str, list[float]] = {}
    if not file.is_file():
        return done
    text = file.read_text(encoding="utf-8", errors="replace")
    for line in text.splitlines():
        try:
            entry = json.loads(line)
            if entry["key"] == key:
                done[str(entry["unit"])] = [float(value) for value in entry["window_kl"]]
        except (ValueError, KeyError, TypeError):
            continue
    if text and not text.endswith("\n"):
        with file.open("a", encoding="utf-8") as out:
            out.write("\n")
    return done
