"""Joules of a window and per token, from the samples of a counter that a record keeps.

Facts read, as `bench.run.energy_window` writes them, all optional:

| key | meaning |
|---|---|
| energy_window | duration_s, asked_s, and the input_tokens and output_tokens of what ran in it |
| energy_samples | columns (probes.window_samples): the counter and its device, in the window and next to it |
| idle_power_w | mean power of the device just before, with nothing on it |
| power_limit_w | the device's own limit |

Gross is all that the device used; net is without idle power x time. A joule per input token is the window's
joules over its input tokens, decoding included: each of the three shares divides the same joules.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby, pairwise
from typing import Any

LEAST_S = 10.0  # counters move every 100 ms: both ends together are then within 2 %
SAMPLES_PER_S = 2.0
STILL_S = 1.0  # a counter that does not move for longer is not counting
AGREES = 0.05

_COLUMNS = ("energy_j", "power_w", "sm_clock_mhz", "temperature_c", "throttle", "foreign")
_Series = Sequence[tuple[float, float]]  # time and value


def energy_metrics(facts: Mapping[str, Any]) -> dict[str, float]:
    """Every metric of the window, by name; empty where there was none.

    `energy_valid` is 1 where nothing speaks against the joules, else 0. They are absent where the counter was
    not read at both ends, net ones where idle power is unknown.
    """
    if "energy_window" not in facts:
        return {}
    window, columns = facts["energy_window"], _columns(facts)
    duration_s = float(window["duration_s"])
    metrics = {
        "energy_valid": 0.0 if faults(facts) else 1.0,
        "energy_window_s": duration_s,
        **_state(columns, duration_s),
        **{k: float(facts[k]) for k in ("idle_power_w", "power_limit_w") if k in facts},
    }
    gross_j = _counted_j(columns, duration_s)
    if gross_j is None:
        return metrics
    metrics["power_mean_w"] = gross_j / duration_s
    joules = {"gross": gross_j}
    if "idle_power_w" in facts:
        joules["net"] = gross_j - facts["idle_power_w"] * duration_s
    inputs, outputs = float(window["input_tokens"]), float(window["output_tokens"])
    for kind, value in joules.items():
        metrics[f"energy_{kind}_j"] = value
        for of, tokens in (("input", inputs), ("output", outputs), ("total", inputs + outputs)):
            if tokens > 0:
                metrics[f"energy_{kind}_j_per_{of}_token"] = value / tokens
    return metrics


def faults(facts: Mapping[str, Any]) -> list[str]:
    """Why the joules of a window cannot be trusted, a clause each; empty where they can or there are none."""
    if "energy_window" not in facts:
        return []
    window, columns = facts["energy_window"], _columns(facts)
    return [*_length(window, columns), *_counter(columns), *_contradictions(window, columns, facts)]


def mean_w(samples: Sequence[tuple[float, float | None]]) -> float | None:
    """Mean power by a counter of joules, from the first to the last time it moved; None where it did not."""
    known = [(at, value) for at, value in samples if value is not None]
    moved = [later for earlier, later in pairwise(known) if later[1] != earlier[1]]
    if len(moved) < 2:
        return None
    return (moved[-1][1] - moved[0][1]) / (moved[-1][0] - moved[0][0])


def _length(window: Mapping[str, Any], columns: Mapping[str, _Series]) -> Iterator[str]:
    duration_s, least_s = window["duration_s"], max(LEAST_S, window["asked_s"])
    if duration_s < least_s:
        yield f"the window was {duration_s:.3g} s long, and {least_s:g} s are needed"
    inside = [at for at, _ in columns["energy_j"] if 0 <= at <= duration_s]
    if len(inside) < SAMPLES_PER_S * duration_s:
        yield f"the counter was read {len(inside)} times in {duration_s:.3g} s"
    if _counted_j(columns, duration_s) is None:
        yield "the counter was not read at both ends of the window"


def _counter(columns: Mapping[str, _Series]) -> Iterator[str]:
    joules = columns["energy_j"]
    if any(later < earlier for (_, earlier), (_, later) in pairwise(joules)):
        yield "the counter went backwards"
    still = [list(run) for _, run in groupby(joules, key=lambda sample: sample[1])]
    longest_s = max((run[-1][0] - run[0][0] for run in still), default=0.0)
    if longest_s > STILL_S:
        yield f"the counter stood still for {longest_s:.2g} s"


def _contradictions(
    window: Mapping[str, Any], columns: Mapping[str, _Series], facts: Mapping[str, Any]
) -> Iterator[str]:
    """What contradicts the counter, or shared its device."""
    duration_s = window["duration_s"]
    most = max((count for at, count in columns["foreign"] if 0 <= at <= duration_s), default=0.0)
    if most > 0:
        yield f"{most:.0f} other process{'es' if most > 1 else ''} held the device"
    counted_j, power_j = _counted_j(columns, duration_s), _integral(columns["power_w"], duration_s)
    if counted_j is None:
        return
    if power_j is not None and abs(counted_j - power_j) > AGREES * power_j:
        yield f"the counter gives {counted_j:.4g} J where power adds up to {power_j:.4g} J"
    idle_w = facts.get("idle_power_w")
    if idle_w is not None and counted_j <= idle_w * duration_s:
        yield f"the device drew no more than the {idle_w:.3g} W it drew idle"


def _state(columns: Mapping[str, _Series], duration_s: float) -> dict[str, float]:
    """Clocks, heat and throttling in the window: what makes two windows unlike."""
    inside = {name: [v for at, v in series if 0 <= at <= duration_s] for name, series in columns.items()}
    clocks, heat, slowed = (inside[name] for name in ("sm_clock_mhz", "temperature_c", "throttle"))
    metrics = {}
    if clocks:
        metrics = {
            "energy_sm_clock_min_mhz": min(clocks),
            "energy_sm_clock_mean_mhz": sum(clocks) / len(clocks),
            "energy_sm_clock_max_mhz": max(clocks),
            "energy_throttled_fraction": sum(v > 0 for v in slowed) / len(slowed),
        }
    return {**metrics, "energy_temperature_max_c": max(heat)} if heat else metrics


def _counted_j(columns: Mapping[str, _Series], duration_s: float) -> float | None:
    ends = [_at(columns["energy_j"], at) for at in (0.0, duration_s)]
    return None if ends[0] is None or ends[1] is None else ends[1] - ends[0]


def _integral(series: _Series, duration_s: float) -> float | None:
    """By trapezoids between the window's ends; None where the series does not reach them."""
    first, last = _at(series, 0.0), _at(series, duration_s)
    if first is None or last is None:
        return None
    inside = [(at, value) for at, value in series if 0 < at < duration_s]
    points = [(0.0, first), *inside, (duration_s, last)]
    return sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairwise(points))


def _at(series: _Series, time_s: float) -> float | None:
    """The value at a time, on the line between its neighbours; None outside."""
    i = bisect_left(series, time_s, key=lambda sample: sample[0])
    if i < len(series) and series[i][0] == time_s:
        return series[i][1]
    if not 0 < i < len(series):
        return None
    (t0, v0), (t1, v1) = series[i - 1], series[i]
    return v0 + (v1 - v0) * (time_s - t0) / (t1 - t0)


def _columns(facts: Mapping[str, Any]) -> dict[str, list[tuple[float, float]]]:
    """Each column of `energy_samples` as times and values, unknown ones left out."""
    samples: Mapping[str, Sequence[Any]] = facts.get("energy_samples", {})
    times_s = samples.get("time_s", ())
    return {
        name: [(at, value) for at, value in zip(times_s, samples.get(name, ()), strict=False) if value is not None]
        for name in _COLUMNS
    }
