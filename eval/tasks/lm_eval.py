"""Any task of lm-evaluation-harness on every engine that scores: its metrics, their errors, item by item.

lm-eval makes the requests and judges the replies in its own environment (eval/harness.py); in between, each
engine is given the same token ids. `max_length` is one value for all engines: lm-eval's wrappers each take
their own, and figures move with it. It is one less than the model's context unless given, since an engine
that generates must be fed one token more than is scored.
"""

from __future__ import annotations

import hashlib
import json
import math
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import paths
from bench.contract import plugins
from bench.contract.columns import PAIRED_CHANGES, SCORE_CHANGE, Column, Group
from bench.contract.errors import UserError
from bench.contract.hooks import Session, Verdict
from eval.scoring import likelihood
from eval.stats import paired

ENV = "lm_eval"
VERSION = 1
REFERENCE = False
PATHS = ("include_path", "data")
TOKENIZERS = {"gguf": "llamacpp"}  # Transformers reads a GGUF file's only where it has torch
COLUMNS = (
    Column(
        "accuracy_fraction",
        "{title}",
        "%",
        100.0,
        better="higher",
        groups=Group.PAIRED,
        interval=("accuracy_low_fraction", "accuracy_high_fraction"),
        change=SCORE_CHANGE,
    ),
    Column(
        "score", "{title}", digits=4, groups=Group.PAIRED, interval=("score_low", "score_high"), change=SCORE_CHANGE
    ),
    *PAIRED_CHANGES,
)
_ASKED = "requests.json"
_KEPT = ("max_length", "truncated", "requests", "texts_sha256", "tokens_sha256")
_Z95 = 1.959963984540054
# Facts that two comparable records share.
_SAME = ("texts_sha256", "metric", "items", "max_length")


@dataclass(frozen=True)
class Options:
    """`tasks`: one task or group by lm-eval's name. `num_fewshot` -1 is the task's own; `limit` 0 all items.

    `metric`: the one that is compared; else acc, or the task's first. `include_path`: a folder of task YAML,
    which may call Python beside it. `data`: the folder of the tasks here that end in _local. `max_length` 0:
    one less than the model's context.
    """

    tasks: str = "stdlib_next_line"
    num_fewshot: int = -1
    limit: int = 0
    seed: int = 1234
    metric: str = ""
    max_length: int = 0
    apply_chat_template: bool = False
    system_instruction: str = ""
    include_path: str = ""
    data: str = ""


def title(options: Options) -> str:
    """As lm_eval-arc_easy, with -5shot, -100 for a limit, and whatever else is not the task's own."""
    parts = {
        f"{options.num_fewshot}shot": options.num_fewshot >= 0,
        f"{options.limit}items": options.limit > 0,
        options.metric: bool(options.metric),
        f"max{options.max_length}": options.max_length > 0,
        "chat": options.apply_chat_template,
        f"seed{options.seed}": options.seed != Options.seed,
        f"system{_short(options.system_instruction)}": bool(options.system_instruction),
    }
    return "-".join(["lm_eval", options.tasks, *(part for part, said in parts.items() if said)])


def depends(options: Options) -> Any:
    """The text of a task that ships here, and the Python whose library its items are cut from."""
    file = paths.CONFIGS / "tasks" / f"{options.tasks}.yaml"
    if Path(options.tasks).name != options.tasks or not file.is_file():
        return None
    makers = [
        Path(__file__).resolve().parents[1] / name for name in ("stdlib_items.py", "local_items.py", "corpora.py")
    ]
    texts = [hashlib.sha256(part.read_bytes()).hexdigest() for part in (file, *makers)]
    return [*texts, platform.python_version()]


def tokenizer(folder: Path, out: Path) -> None:
    """As Transformers reads it from the GGUF file that `folder` is or holds."""
    from transformers import AutoTokenizer

    file = folder if folder.is_file() else min(folder.glob("*.gguf"))
    try:
        found = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name, local_files_only=True)
        found.save_pretrained(out)
    except Exception as error:
        raise UserError(
            f"Transformers cannot read the tokenizer in the GGUF file ({type(error).__name__}): "
            "put the model's tokenizer.json into a folder with it, and name the folder"
        ) from error


def build_requests(options: Options, folder: Path, context: int, out: Path) -> Mapping[str, Any]:
    """The requests of the task as token ids, in `requests.json`."""
    from eval.lm_eval import harness

    length = _max_length(options, context)
    model, found = harness.run(options, folder, length, None)
    asked = model.requests
    questions, pairs = likelihood.grouped(asked.pairs)
    if not pairs and not asked.prompts:
        raise UserError(f"the task '{options.tasks}' asks nothing: its data has no item")
    whole = {"questions": questions, "pairs": pairs, "prompts": asked.prompts, "eos": model.eot_token_id}
    (out / _ASKED).write_text(json.dumps(whole, separators=(",", ":")), encoding="utf-8")
    if asked.prompts:
        model.tokenizer.backend_tokenizer.save(str(out / "tokenizer.json"))
    metric = _metric(options, found)
    return {
        "max_length": length,
        "truncated": asked.truncated,
        "requests": len(asked.pairs) + len(asked.prompts),
        "texts_sha256": asked.texts.hexdigest(),
        "metric": metric,
        "tokens_sha256": hashlib.sha256(json.dumps(whole).encode()).hexdigest(),
    }


def evaluate(session: Session, options: Options, folder: Path, reference: Path | None) -> Mapping[str, Any]:
    """Replies: per request its log-probability (nats) and whether it is greedy, or the ids written."""
    del options, folder
    assert reference is not None  # noqa: S101  (the pipeline has asked)
    asked = json.loads((reference / _ASKED).read_text(encoding="utf-8"))
    found = likelihood.scores(session, asked["questions"])
    scores = [found[place][choice] for place, choice in asked["pairs"]]
    if not all(math.isfinite(logprob) for logprob, _ in scores):
        raise UserError("log-probabilities of the task's choices are not finite: use a wider compute dtype")
    return {"scores": scores, "written": likelihood.written(session, asked["prompts"], asked["eos"], reference)}


def score_replies(options: Options, folder: Path, asked: Path, replies: Mapping[str, Any]) -> Verdict:
    """lm-eval's metrics, and per item what the chosen one says of it."""
    import importlib.metadata

    from eval.lm_eval import harness

    known = json.loads((asked / "asked.json").read_text(encoding="utf-8"))
    given = harness.Replies(replies["scores"], replies["written"])
    model, found = harness.run(options, folder, known["max_length"], given)
    if model.requests.texts.hexdigest() != known["texts_sha256"]:
        raise UserError(
            f"lm-eval words the task '{options.tasks}' otherwise than when it was asked: delete {asked.name} "
            "in the cache's folder asked, and run it again"
        )
    metric, samples = known["metric"], _samples(found)
    scores = _scores(found["results"][options.tasks])
    items = _per_item(samples, metric)
    if items and not math.isclose(math.fsum(items) / len(items), scores[metric], rel_tol=0, abs_tol=1e-9):
        items = []  # a group whose score is no mean over its items
    better = found["higher_is_better"].get(options.tasks, {}).get(metric.partition("-")[0], True)
    facts = {
        **{key: known[key] for key in _KEPT},
        "task": options.tasks,
        "lm_eval": importlib.metadata.version("lm_eval"),
        "metric": metric,
        "task_versions": {name: found["versions"].get(name) for name in found["configs"]},
        "num_fewshot": found["n-shot"],
        "scores": scores,
        "items": len(samples),
        "item_scores": _packed(items),
        "higher_is_better": better,
    }
    return Verdict(facts, tuple(_rows(samples)))


def metrics(facts: Mapping[str, Any]) -> Mapping[str, float]:
    """lm-eval's own; the compared one also as `accuracy_fraction` where items have one, else as `score`."""
    scores: Mapping[str, float] = facts["scores"]
    name = "accuracy_fraction" if facts["item_scores"] else "score"
    found = {**scores, name: scores[facts["metric"]], "scored_items": float(facts["items"])}
    if (stderr := scores.get(f"{facts['metric']}_stderr")) is not None:
        stem = name.removesuffix("_fraction")
        unit = name.removeprefix(stem)
        found[f"{stem}_stderr{unit}"] = stderr
        found[f"{stem}_low{unit}"], found[f"{stem}_high{unit}"] = (
            scores[facts["metric"]] + sign * _Z95 * stderr for sign in (-1, 1)
        )
    return found


def compare_to_baseline(facts: Mapping[str, Any], baseline: Mapping[str, Any]) -> Mapping[str, float]:
    """Against the baseline on the same items: eval/paired.py says what each figure is."""
    paired.require_same_items(facts, baseline, _SAME, ("scores", "item_scores"))
    mine, theirs = facts["scores"][facts["metric"]], baseline["scores"][facts["metric"]]
    found = {"score_recovery_fraction": mine / theirs} if theirs else {}
    if not (facts["item_scores"] and baseline["item_scores"]):
        return {**found, "score_change": mine - theirs}
    return {**found, **paired.compare(_unpacked(facts["item_scores"]), _unpacked(baseline["item_scores"]))}


def _max_length(options: Options, context: int) -> int:
    length = options.max_length or context - 1
    if context and length >= context:
        raise UserError(f"max_length {length} leaves no room in the model's context of {context}: {context - 1} fit")
    if length < 2:
        raise UserError("the model does not say how long its context is: give max_length")
    return length


def _metric(options: Options, found: Any) -> str:
    """The metric that is compared, by its name here."""
    results = found["results"][options.tasks]
    known = list(_scores({key: 0.0 for key in results if "_stderr," not in key}))  # no reply has its value yet
    if not known:
        raise UserError(f"the task '{options.tasks}' has no metric: give it a metric_list")
    if options.metric and options.metric not in known:
        raise UserError(plugins.unknown(f"metric of {options.tasks}", options.metric, tuple(known)))
    return options.metric or next((name for name in known if name == "acc"), known[0])


def _scores(results: Mapping[str, Any]) -> dict[str, float]:
    """By name: acc and acc_stderr where lm-eval says "acc,none"; exact_match-strict for a filter strict."""
    found = {}
    for key, value in results.items():
        metric, _, chosen = key.partition(",")
        if chosen and isinstance(value, int | float) and math.isfinite(value):
            stem, is_stderr = metric.removesuffix("_stderr"), metric.endswith("_stderr")
            name = stem if chosen == "none" else f"{stem}-{chosen}"
            found[f"{name}_stderr" if is_stderr else name] = float(value)
    return found


def _samples(found: Any) -> list[tuple[str, list[Mapping[str, Any]]]]:
    """(task, what lm-eval noted of the item under each filter), in lm-eval's order."""
    items: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for name, samples in found["samples"].items():
        for sample in samples:
            items.setdefault((name, sample["doc_id"]), []).append(sample)
    return [(name, samples) for (name, _), samples in items.items()]


def _per_item(samples: Sequence[tuple[str, list[Mapping[str, Any]]]], metric: str) -> list[float]:
    """The metric of each item, within 0 .. 1; empty where it has another form."""
    stem, _, chosen = metric.partition("-")
    values = [next((s.get(stem) for s in found if s["filter"] == (chosen or "none")), None) for _, found in samples]
    fit = all(isinstance(v, int | float) and 0 <= v <= 1 for v in values)
    return [float(v) for v in values if v is not None] if fit else []


def _rows(samples: Sequence[tuple[str, list[Mapping[str, Any]]]]) -> Iterator[tuple[Any, ...]]:
    """Names of columns, then per item: task, number, hash, target, its metrics, and the replies."""
    names = list(dict.fromkeys((s["filter"], m) for _, found in samples for s in found for m in s["metrics"]))
    heads = [m if chosen == "none" else f"{m}-{chosen}" for chosen, m in names]
    yield ("task", "item", "sha256", "target", *heads, "replies")
    for task, found in samples:
        by_filter = {s["filter"]: s for s in found}
        first = found[0]
        values = [_plain(by_filter.get(chosen, {}).get(m)) for chosen, m in names]
        replies = [_plain(reply) for reply in first["resps"]]
        yield (task, first["doc_id"], first["doc_hash"][:12], _plain(first["target"]), *values, replies)


def _plain(value: Any) -> Any:
    """A JSON value: what is no number or text is written out. A request's only reply stands for itself."""
    if isinstance(value, list | tuple):
        return _plain(value[0]) if len(value) == 1 else [_plain(v) for v in value]
    if hasattr(value, "item"):
        value = value.item()
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _packed(items: Sequence[float]) -> Any:
    """A text of 0 and 1 where items are right or wrong, else the values."""
    return "".join("01"[int(v)] for v in items) if set(items) <= {0.0, 1.0} else list(items)


def _unpacked(items: Any) -> list[float]:
    return [float(item) for item in items]


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:6]
