"""The results file of lm-evaluation-harness (`--output_path`, results_….json): a measurement for each task in it.

Of lm-eval 0.4: `results` has a task's metrics as "acc,none" and "acc_stderr,none", `n-samples` how many items were
scored. A group's score is over the items of its tasks.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bench.contract import plugins
from bench.contract.spec import Task
from bench.share.tools.measurement import Count, Measurement, Number, Text, public_name, started, validated

NAME = "lm-eval"
KIND = "lm_eval"
NOTES: tuple[str, ...] = (
    (
        "lm-eval: scored by its own model class, which cuts texts into tokens, batches and rounds as it does; the "
        "file has no answers to single items, so nothing is paired with it"
    ),
)
_SHARES = ("acc", "acc_norm", "exact_match")
_RENAMED = {
    "score": "accuracy_fraction",
    "score_stderr": "accuracy_stderr_fraction",
    "score_low": "accuracy_low_fraction",
    "score_high": "accuracy_high_fraction",
}
_ENGINES = {"hf": "hf", "vllm": "vllm", "local-completions": "openai", "local-chat-completions": "openai"}


@dataclass(frozen=True)
class _Items:
    effective: Count


@dataclass(frozen=True)
class _Config:
    model: Text = ""
    limit: Number | None = None
    num_fewshot: Count | None = None


@dataclass(frozen=True)
class _File:
    results: Mapping[Text, Mapping[str, Any]]
    n_samples: Mapping[Text, _Items] = field(default_factory=dict)
    groups: Mapping[Text, tuple[Text, ...]] = field(default_factory=dict)
    n_shot: Mapping[Text, Count] = field(default_factory=dict)
    versions: Mapping[Text, Any] = field(default_factory=dict)
    higher_is_better: Mapping[Text, Mapping[str, Any]] = field(default_factory=dict)
    config: _Config = field(default_factory=_Config)
    model_source: Text = ""
    model_name: Text = ""
    lm_eval_version: Text = ""
    transformers_version: Text | None = ""
    date: Number = 0.0
    total_evaluation_time_seconds: Number = 0.0
    max_length: Count | None = None
    chat_template: Any = None
    system_instruction: str | None = None
    pretty_env_info: str = ""


def matches(data: Any) -> bool:
    return isinstance(data, dict) and {"results", "configs", "versions", "n-shot"} <= data.keys()


def read(data: Any) -> list[Measurement]:
    """A measurement for each task or group that has a score and items."""
    renamed = {"n_samples": "n-samples", "n_shot": "n-shot", "groups": "group_subtasks"}
    its = validated(_File, {**data, **{ours: data[theirs] for ours, theirs in renamed.items() if theirs in data}})
    return [each for task in its.results if (each := _measurement(task, its)) is not None]


def _measurement(task: str, its: _File) -> Measurement | None:
    scores, items = _scores(its.results[task]), _items(task, its)
    names = [name for name in scores if not name.endswith("_stderr")]
    if not names or not items:
        return None
    metric = "acc" if "acc" in names else names[0]
    plugin = plugins.load(plugins.TASKS, KIND)
    limit = int(its.config.limit or 0) if (its.config.limit or 0) >= 1 else 0
    given: dict[str, Any] = {"tasks": task, "limit": limit}
    if its.config.num_fewshot is not None:
        given["num_fewshot"] = its.config.num_fewshot
    if its.chat_template is not None:
        given["apply_chat_template"] = True
    if its.system_instruction:
        given["system_instruction"] = its.system_instruction
    better = its.higher_is_better.get(task, {}).get(metric.partition("-")[0], True)
    facts = {
        "task": task,
        "metric": metric,
        "scores": scores,
        "items": items,
        "item_scores": [],
        "num_fewshot": {task: its.n_shot.get(task, 0)},
        "task_versions": {task: str(its.versions.get(task, ""))},
        "higher_is_better": bool(better),
        "texts_sha256": "",
        "requests": items,
        "lm_eval": its.lm_eval_version,
        "model_class": its.model_source or its.config.model,
        **({"max_length": its.max_length} if its.max_length else {}),
    }
    metrics = plugin.metrics(facts)
    if metric.partition("-")[0] in _SHARES:
        metrics = {_RENAMED.get(name, name): value for name, value in metrics.items()}
    name = plugin.title(plugin.Options(**given))
    versions = {"lm-eval": its.lm_eval_version, "transformers": its.transformers_version or ""}
    return Measurement(
        public_name(its.model_name),
        None,
        Task(KIND, given, name),
        metrics,
        facts,
        engine=_ENGINES.get(its.model_source or its.config.model, ""),
        environment={name: version for name, version in versions.items() if version},
        started=started(its.date),
        duration_s=its.total_evaluation_time_seconds,
        cpu=_line("Model name", its.pretty_env_info),
        system=_line("OS", its.pretty_env_info),
    )


def _line(name: str, info: str) -> str:
    """What a line of the environment's description says; "" where there is none."""
    match = re.search(rf"^{name}:[ \t]*(\S.{{0,99}})", info, re.MULTILINE)
    return match[1].strip() if match else ""


def _scores(named: Mapping[str, Any]) -> dict[str, float]:
    """By name: acc and acc_stderr for lm-eval's "acc,none"; exact_match-strict for a filter strict."""
    by_name = {}
    for key, value in named.items():
        metric, _, filter_name = key.partition(",")
        if filter_name and isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            stem = metric.removesuffix("_stderr")
            name = stem if filter_name == "none" else f"{stem}-{filter_name}"
            by_name[f"{name}_stderr" if metric.endswith("_stderr") else name] = float(value)
    return by_name


def _items(task: str, its: _File) -> int:
    """How many items were scored; of a group those of its tasks."""
    if task in its.n_samples:
        return its.n_samples[task].effective
    return sum(its.n_samples[each].effective for each in its.groups.get(task, ()) if each in its.n_samples)
