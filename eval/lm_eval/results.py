"""What lm-evaluation-harness returns: scores by name, the score of each item, and the items as a table."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench.contract import plugins
from bench.contract.errors import UserError
from bench.contract.served import item_answers

Item = tuple[str, list[Mapping[str, Any]]]  # its task, and lm-eval's sample of it under each filter


def compared_metric(results: Mapping[str, Any], task: str, metric: str) -> str:
    """The metric that artifacts are compared by: `metric`, else acc, else the task's first."""
    named = results["results"][task]
    names = list(scores({key: 0.0 for key in named if "_stderr," not in key}))  # without replies they have no value
    if not names:
        raise UserError(f"the task '{task}' has no metric: give it a metric_list")
    if metric and metric not in names:
        raise UserError(plugins.unknown(f"metric of {task}", metric, tuple(names)))
    return metric or ("acc" if "acc" in names else names[0])


def scores(named: Mapping[str, Any]) -> dict[str, float]:
    """By name: acc and acc_stderr for lm-eval's "acc,none"; exact_match-strict for a filter strict."""
    by_name = {}
    for key, value in named.items():
        metric, _, filter_name = key.partition(",")
        if filter_name and isinstance(value, int | float) and math.isfinite(value):
            stem, is_stderr = metric.removesuffix("_stderr"), metric.endswith("_stderr")
            name = stem if filter_name == "none" else f"{stem}-{filter_name}"
            by_name[f"{name}_stderr" if is_stderr else name] = float(value)
    return by_name


def items(results: Mapping[str, Any]) -> list[Item]:
    samples_by_item: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for task, samples in results["samples"].items():
        for sample in samples:
            samples_by_item.setdefault((task, sample["doc_id"]), []).append(sample)
    return [(task, samples) for (task, _), samples in samples_by_item.items()]


def item_scores(items: Sequence[Item], metric: str) -> list[float]:
    """The metric of each item, within 0 .. 1; empty where its values are of another form."""
    stem, _, filter_name = metric.partition("-")
    filter_name = filter_name or "none"
    values = [next((s.get(stem) for s in samples if s["filter"] == filter_name), None) for _, samples in items]
    fractions = [float(v) for v in values if isinstance(v, int | float) and 0 <= v <= 1]
    return fractions if len(fractions) == len(values) else []


def answer_facts(items: Sequence[Item]) -> dict[str, Any]:
    """`item_answers`: of each item's answer; nothing of choices, which have none."""
    answers = [samples[0]["resps"] for _, samples in items]
    texts = [_plain(answer) for answer in answers]
    if not texts or not all(isinstance(text, str) for text in texts):
        return {}
    return {"item_answers": item_answers(texts)}


def table(items: Sequence[Item]) -> Iterator[tuple[Any, ...]]:
    """Names of columns, then per item: task, number, hash, target, its metrics, and the replies."""
    names = list(dict.fromkeys((s["filter"], m) for _, samples in items for s in samples for m in s["metrics"]))
    heads = [metric if filter_name == "none" else f"{metric}-{filter_name}" for filter_name, metric in names]
    yield ("task", "item", "sha256", "target", *heads, "replies")
    for task, samples in items:
        by_filter = {sample["filter"]: sample for sample in samples}
        first = samples[0]
        values = [_plain(by_filter.get(filter_name, {}).get(metric)) for filter_name, metric in names]
        replies = [_plain(reply) for reply in first["resps"]]
        yield (task, first["doc_id"], first["doc_hash"][:12], _plain(first["target"]), *values, replies)


def _plain(value: Any) -> Any:
    """A JSON value; other than numbers and texts as text. A list of one is its only element."""
    if isinstance(value, list | tuple):
        return _plain(value[0]) if len(value) == 1 else [_plain(v) for v in value]
    if hasattr(value, "item"):
        value = value.item()
    return value if isinstance(value, str | int | float | bool | None) else str(value)
