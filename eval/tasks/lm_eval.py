"""Any task of lm-evaluation-harness on every engine that scores: its metrics, their errors, item by item.

lm-eval builds the requests and scores the replies in its own environment (eval/lm_eval/harness.py); every engine
gets the same token ids. Scores depend on `max_length`, which is one value for all engines: by default one less
than the model's context, since an engine that generates is fed one token more than is scored.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import paths
from bench.contract.columns import ACCURACY, PAIRED_CHANGES, SCORE_CHANGE, Column, Group
from bench.contract.errors import UserError
from bench.contract.hooks import ScoredReplies, Session
from bench.contract.served import SINCE, ServedOptions, ServedPrompt, ServedSession
from eval.scoring import likelihood
from eval.stats import paired, proportion

_TASKS, _LOCAL = paths.CONFIGS / "tasks", "_local"
ENV = "lm_eval"
VERSION = 1
REFERENCE = False
PATHS = ("include_path", "data")
OPTIONS_SINCE = frozenset({"spread"}) | SINCE
COLUMNS = (
    ACCURACY,
    Column(
        "score", "{title}", digits=4, groups=Group.PAIRED, interval=("score_low", "score_high"), change=SCORE_CHANGE
    ),
    *PAIRED_CHANGES,
)
_REQUESTS, _TEXTS = "requests.json", "texts.json"
# Of eval/local_items.py as it was when requests of stdlib_* were last built: they do not read it, and once named it.
_LOCAL_ITEMS_SHA256 = "1670cb8c0ffa36d1919441eb8bbcf2ec84a540d209972d00e436c6c5a7fe7575"
_RECORDED = ("max_length", "truncated", "requests", "texts_sha256", "tokens_sha256")
# Facts that two comparable records share.
_SAME = ("texts_sha256", "metric", "items")


@dataclass(frozen=True)
class Options(ServedOptions):
    """`tasks`: one task or group by lm-eval's name. `num_fewshot` -1 is the task's own; `limit` 0 all items.

    `spread`: the items of `limit` lie evenly over all of the task's, in place of its first ones, which some data sets
    order by source (HellaSwag's first third is of videos). `metric`: the one that is compared; else acc, or the task's
    first. `include_path`: a folder of task YAML, which may call Python next to it. `data`: the folder of data for this
    suite's tasks that end in _local. `max_length` 0: one less than the model's context.
    """

    tasks: str = "stdlib_next_line"
    num_fewshot: int = -1
    limit: int = 0
    spread: bool = False
    seed: int = 1234
    metric: str = ""
    max_length: int = 0
    apply_chat_template: bool = False
    system_instruction: str = ""
    include_path: str = ""
    data: str = ""


def title(options: Options) -> str:
    """As lm_eval-arc_easy, with -5shot, -100items for a limit, and whatever else is not the task's default."""
    system_sha256 = hashlib.sha256(options.system_instruction.encode()).hexdigest()
    parts = {
        f"{options.num_fewshot}shot": options.num_fewshot >= 0,
        f"{options.limit}items": options.limit > 0,
        "spread": options.spread,
        options.metric: bool(options.metric),
        f"max{options.max_length}": options.max_length > 0,
        "chat": options.apply_chat_template,
        f"seed{options.seed}": options.seed != Options.seed,
        f"system{system_sha256[:6]}": bool(options.system_instruction),
    }
    chosen = (part for part, applies in parts.items() if applies)
    return "-".join(["lm_eval", options.tasks, *chosen, *options.suffixes])


def depends(options: Options) -> Any:
    """The text of a task of this suite and of what makes its items; for those cut from a library, which Python's."""
    if not _is_ours(options.tasks):
        return None
    file, package = _TASKS / f"{options.tasks}.yaml", Path(__file__).resolve().parents[1]
    if options.tasks.endswith(_LOCAL):
        return [_sha256(file), _sha256(package / "local_items.py")]
    library = [_sha256(package / "stdlib_items.py"), _LOCAL_ITEMS_SHA256, _sha256(package / "corpora.py")]
    return [_sha256(file), *library, platform.python_version()]


def local(options: Options, folder: Path) -> Options:
    """An lm-eval task whose items this suite can read from a file: the same from `folder`/tasks; another as it is."""
    name = options.tasks.removesuffix(_LOCAL)
    if options.data or not _is_ours(f"{name}{_LOCAL}"):
        return options
    files = [folder / "tasks" / f"{name}.jsonl", folder / "tasks" / f"{name}.jsonl.gz"]
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        raise UserError(f"{options.tasks} is read from {files[0]} (or .gz), which does not exist")
    if options.num_fewshot > 0:
        raise UserError(f"{options.tasks} with examples needs the training split, which {file} has not: leave out data")
    return dataclasses.replace(options, tasks=f"{name}{_LOCAL}", data=f"path:{file}")


def build_requests(options: Options, folder: Path, context: int, out: Path) -> Mapping[str, Any]:
    """The requests of the task as token ids, in `requests.json`."""
    from eval.lm_eval import harness, results

    length = _max_length(options, context)
    model, evaluated = harness.run(options, folder, length, None)
    requests = model.requests
    questions, pairs = likelihood.grouped(requests.pairs)
    if not pairs and not requests.prompts:
        raise UserError(f"the task '{options.tasks}' has no items")
    content = {"questions": questions, "pairs": pairs, "prompts": requests.prompts, "eos": model.eot_token_id}
    (out / _REQUESTS).write_text(json.dumps(content, separators=(",", ":")), encoding="utf-8")
    if requests.prompts and options.is_served:
        (out / _TEXTS).write_text(json.dumps(requests.prompt_texts), encoding="utf-8")
    if requests.prompts:
        model.tokenizer.backend_tokenizer.save(str(out / "tokenizer.json"))
    return {
        "max_length": length,
        "truncated": requests.truncated,
        "requests": len(requests.pairs) + len(requests.prompts),
        "texts_sha256": requests.texts.hexdigest(),
        "metric": results.compared_metric(evaluated, options.tasks, options.metric),
        "tokens_sha256": hashlib.sha256(json.dumps(content).encode()).hexdigest(),
    }


def evaluate(session: Session, options: Options, folder: Path, reference: Path | None) -> Mapping[str, Any]:
    """Replies: per pair its log-probability (nats) and whether it is greedy, per prompt the generated ids.

    Of a server its text instead.
    """
    if reference is None:
        raise UserError("lm_eval needs requests that were built before: run it from a suite, or by python -m eval")
    requests = json.loads((reference / _REQUESTS).read_text(encoding="utf-8"))
    by_question = likelihood.scores(session, requests["questions"])
    scores = [by_question[question][choice] for question, choice in requests["pairs"]]
    if not all(math.isfinite(logprob) for logprob, _ in scores):
        raise UserError("log-probabilities of the task's choices are not finite: use a wider compute dtype")
    if isinstance(session, ServedSession):
        return {"scores": scores, "written": session.answers(_served_prompts(requests["prompts"], reference))}
    generated = likelihood.generated(session, requests["prompts"], requests["eos"], reference)
    return {"scores": scores, "written": generated}


def _served_prompts(prompts: Sequence[Any], folder: Path) -> list[ServedPrompt]:
    """The prompts as a server may be given them; without a text where they were cut to the model's context."""
    texts = json.loads((folder / _TEXTS).read_text(encoding="utf-8")) if prompts else []
    return [
        ServedPrompt(tuple(ids), new, tuple(stops), text, tuple(map(tuple, messages)))
        for (ids, new, stops), (text, messages) in zip(prompts, texts, strict=True)
    ]


def score_replies(options: Options, folder: Path, requests: Path, replies: Mapping[str, Any]) -> ScoredReplies:
    """lm-eval's metrics, and per item the value of the compared one."""
    import importlib.metadata

    from eval.lm_eval import harness, results
    from eval.lm_eval.token_model import Replies

    built = json.loads((requests / "facts.json").read_text(encoding="utf-8"))
    model, evaluated = harness.run(options, folder, built["max_length"], Replies(replies["scores"], replies["written"]))
    if model.requests.texts.hexdigest() != built["texts_sha256"]:
        raise UserError(
            f"lm-eval's requests of the task '{options.tasks}' have changed since they were sent: delete the folder "
            f"{requests.name} in asked/ of the cache, and run it again"
        )
    metric, items = built["metric"], results.items(evaluated)
    scores = results.scores(evaluated["results"][options.tasks])
    item_scores = results.item_scores(items, metric)
    if item_scores:
        mean = math.fsum(item_scores) / len(item_scores)
        if not math.isclose(mean, scores[metric], rel_tol=0, abs_tol=1e-9):
            item_scores = []  # a group whose score is not the mean over its items
    facts = {
        **{key: built[key] for key in _RECORDED},
        "task": options.tasks,
        "lm_eval": importlib.metadata.version("lm_eval"),
        "metric": metric,
        "task_versions": {name: evaluated["versions"].get(name) for name in evaluated["configs"]},
        "num_fewshot": evaluated["n-shot"],
        "scores": scores,
        "items": len(items),
        # A text of 0 and 1 where items are right or wrong, else the values.
        "item_scores": "".join("01"[int(v)] for v in item_scores) if set(item_scores) <= {0.0, 1.0} else item_scores,
        **results.answer_facts(items),
        "higher_is_better": evaluated["higher_is_better"].get(options.tasks, {}).get(metric.partition("-")[0], True),
    }
    return ScoredReplies(facts, tuple(results.table(items)))


def metrics(facts: Mapping[str, Any]) -> Mapping[str, float]:
    """lm-eval's own; the compared one also as `accuracy_fraction` where items have scores, else as `score`.

    With a 95 % interval: Wilson's for an accuracy, 1.96 standard errors for any other score.
    """
    scores: Mapping[str, float] = facts["scores"]
    value, stderr = scores[facts["metric"]], scores.get(f"{facts['metric']}_stderr")
    stem, unit = ("accuracy", "_fraction") if facts["item_scores"] else ("score", "")
    values = {**scores, f"{stem}{unit}": value, "scored_items": float(facts["items"])}
    if stderr is not None:
        values[f"{stem}_stderr{unit}"] = stderr
        is_share = bool(facts["item_scores"]) or facts["metric"].partition("-")[0] in proportion.SHARES
        interval = proportion.interval(value, stderr, facts["items"], is_share=is_share)
        values[f"{stem}_low{unit}"], values[f"{stem}_high{unit}"] = interval
    return values


def compare_to_baseline(facts: Mapping[str, Any], baseline: Mapping[str, Any]) -> Mapping[str, float]:
    """Against the baseline on the same items; eval/stats/paired.py defines each value."""
    # It cuts requests, and the windows of a text scored whole, whose score is no mean over items.
    by_length = any(its.get("truncated") or not its["item_scores"] for its in (facts, baseline))
    paired.require_same_items(facts, baseline, (*_SAME, *(("max_length",) if by_length else ())))
    score, base = facts["scores"][facts["metric"]], baseline["scores"][facts["metric"]]
    recovery = {"score_recovery_fraction": score / base} if base else {}
    items = [[float(item) for item in part["item_scores"]] for part in (facts, baseline)]
    return {**recovery, **(paired.compare(*items) if all(items) else {"score_change": score - base})}


def _max_length(options: Options, context: int) -> int:
    length = options.max_length or context - 1
    if context and length >= context:
        raise UserError(f"max_length {length} is more than the {context - 1} tokens that the model's context allows")
    if length < 2:
        raise UserError("the model's config does not state its context length: set max_length")
    return length


def _is_ours(task: str) -> bool:
    return Path(task).name == task and (_TASKS / f"{task}.yaml").is_file()


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
