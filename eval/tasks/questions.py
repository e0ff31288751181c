"""Questions of a JSONL file, answered greedily: exact match, a regular expression, or a call of a function as JSON.

The same prompts as token ids for every engine in process, and through a server as it takes them. Without a file of
one's own it is `tool_calls`, which ships: which of some functions is to be called, and with which arguments.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import paths
from bench.contract.columns import ACCURACY, PAIRED_CHANGES, csv_only
from bench.contract.errors import UserError
from bench.contract.hooks import ScoredReplies, Session
from bench.contract.served import SINCE, ServedOptions, ServedPrompt, ServedSession, item_answers
from eval.questions import items, verdict
from eval.scoring import likelihood
from eval.stats import paired, proportion

ENV = "lm_eval"
VERSION = 1
REFERENCE = False
PATHS = ("path",)
OPTIONS_SINCE = SINCE
COLUMNS = (ACCURACY, *PAIRED_CHANGES, *csv_only("is_json_fraction", "name_fraction"))
_SHIPPED = paths.CONFIGS / "questions"
_REQUESTS = "requests.json"
_SAME = ("texts_sha256", "metric", "items")  # facts that two comparable records share


@dataclass(frozen=True)
class Options(ServedOptions):
    """`path`: a JSONL file; without one the questions that ship under `name`. `limit` 0: all of them.

    `pattern`: a regular expression whose last match in an answer has to be that of the right answer (its first group,
    if it has one); without one the whole texts are compared, white space aside. `prompt` has {question} where the
    question is; `chat` puts it into the model's chat template. An answer ends at the model's own end, at `stop`, or
    after `new_tokens`.
    """

    name: str = "tool_calls"
    path: str = ""
    limit: int = 0
    pattern: str = ""
    prompt: str = "{question}\n"
    chat: bool = False
    stop: str = ""
    new_tokens: int = 128

    def __post_init__(self) -> None:
        super().__post_init__()
        if "{question}" not in self.prompt:
            raise ValueError("prompt: needs {question}, where each question is put")
        if self.new_tokens < 1 or self.limit < 0:
            raise ValueError("new_tokens: must be at least 1, and limit 0 (all) or more")
        try:
            re.compile(self.pattern)
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(f"pattern: no regular expression ({error})") from None


def title(options: Options) -> str:
    """As questions-tool_calls, with -100items for a limit, -chat, and -server-c16 through a server."""
    stem = Path(options.path.removeprefix("path:")).stem if options.path else options.name
    how = [options.pattern, options.prompt, options.stop]
    parts = {
        stem: True,
        f"{options.limit}items": options.limit > 0,
        "chat": options.chat,
        f"{options.new_tokens}new": options.new_tokens != Options.new_tokens,
        hashlib.sha256(json.dumps(how).encode()).hexdigest()[:6]: how
        != [Options.pattern, Options.prompt, Options.stop],
    }
    return "-".join(["questions", *(part for part, applies in parts.items() if applies), *options.suffixes])


def depends(options: Options) -> Any:
    """The questions' digest; UserError that names the line for a file that holds none."""
    file = _file(options)
    items.read(file)
    return hashlib.sha256(file.read_bytes()).hexdigest()


def build_requests(options: Options, folder: Path, context: int, out: Path) -> Mapping[str, Any]:
    """Each question as token ids, text and messages, in `requests.json`."""
    from eval.lm_eval import chat

    tokenizer = chat.load(folder)
    questions = items.read(_file(options), options.limit)
    prompts = [_prompt(item, options, tokenizer, context) for item in questions]
    texts = [text for _, text, _ in prompts]
    content = {"prompts": prompts, "eos": tokenizer.eos_token_id}
    (out / _REQUESTS).write_text(json.dumps(content), encoding="utf-8")
    tokenizer.backend_tokenizer.save(str(out / "tokenizer.json"))
    digest = hashlib.sha256(json.dumps([texts, options.pattern, options.stop, options.new_tokens]).encode())
    return {"requests": len(prompts), "texts_sha256": digest.hexdigest()}


def _prompt(
    item: items.Item, options: Options, tokenizer: Any, context: int
) -> tuple[list[int], str, tuple[tuple[str, str], ...]]:
    """Its token ids, text and messages; UserError where it does not fit, or the model has no chat template."""
    from eval.lm_eval import chat

    messages = item.messages(options.prompt)
    if options.chat:
        text = chat.rendered(tokenizer, messages, "chat")
        ids = tokenizer.encode(text, add_special_tokens=False)
    else:
        text = "\n\n".join(content for _, content in messages)
        ids = tokenizer.encode(text)
    if context and len(ids) + options.new_tokens > context:
        raise UserError(
            f"line {item.line} of the questions: a prompt of {len(ids)} tokens and {options.new_tokens} new ones "
            f"exceed the context of {context}: lower new_tokens, or leave the line out"
        )
    return list(ids), text, messages


def evaluate(session: Session, options: Options, folder: Path, reference: Path | None) -> Mapping[str, Any]:
    """The answer to each question: its token ids, of a server its text."""
    del folder
    if reference is None:
        raise UserError("questions needs requests that were built before: run it from a suite, or by python -m eval")
    requests = json.loads((reference / _REQUESTS).read_text(encoding="utf-8"))
    stops = [options.stop] if options.stop else []
    if isinstance(session, ServedSession):
        return {"scores": [], "written": session.answers(_served(requests["prompts"], options))}
    prompts = [(ids, options.new_tokens, stops) for ids, _, _ in requests["prompts"]]
    return {"scores": [], "written": likelihood.generated(session, prompts, requests["eos"], reference)}


def _served(prompts: Sequence[Any], options: Options) -> list[ServedPrompt]:
    stops = (options.stop,) if options.stop else ()
    return [
        ServedPrompt(tuple(ids), options.new_tokens, stops, text, tuple(map(tuple, messages)) if options.chat else ())
        for ids, text, messages in prompts
    ]


def score_replies(options: Options, folder: Path, requests: Path, replies: Mapping[str, Any]) -> ScoredReplies:
    """Right or wrong, item by item, with the part of the answer that was compared."""
    from eval.lm_eval import chat

    tokenizer = chat.load(folder)
    built = json.loads((requests / "facts.json").read_text(encoding="utf-8"))
    questions = items.read(_file(options), options.limit)
    answers = [_text(reply, tokenizer, options) for reply in replies["written"]]
    verdicts = [verdict.judge(item, answer, options.pattern) for item, answer in zip(questions, answers, strict=True)]
    facts = {
        "texts_sha256": built["texts_sha256"],
        "metric": "right",
        "items": len(verdicts),
        "item_scores": "".join("01"[v.right] for v in verdicts),
        "item_answers": item_answers(answers),
        "calls": sum(v.is_json is not None for v in verdicts),
        "is_json": sum(bool(v.is_json) for v in verdicts),
        "name_right": sum(bool(v.name) for v in verdicts),
    }
    heads = ("item", "line", "right", "found", "replies")
    rows = [
        (number, item.line, v.right, v.part, answer)
        for number, (item, v, answer) in enumerate(zip(questions, verdicts, answers, strict=True))
    ]
    return ScoredReplies(facts, (heads, *rows))


def _text(reply: Sequence[int] | str, tokenizer: Any, options: Options) -> str:
    """An answer up to its stop, without white space around it."""
    text = reply if isinstance(reply, str) else str(tokenizer.decode(reply, skip_special_tokens=True))
    return (text.partition(options.stop)[0] if options.stop else text).strip()


def metrics(facts: Mapping[str, Any]) -> Mapping[str, float]:
    """The share of right answers with Wilson's 95 % interval; of calls also those that are JSON, and name the function.

    A call is right where its function and all of its arguments are.
    """
    count = facts["items"]
    share = facts["item_scores"].count("1") / count
    low, high = proportion.wilson(share, count)
    values = {
        "accuracy_fraction": share,
        "accuracy_low_fraction": low,
        "accuracy_high_fraction": high,
        "scored_items": float(count),
    }
    if calls := facts["calls"]:
        values |= {"is_json_fraction": facts["is_json"] / calls, "name_fraction": facts["name_right"] / calls}
    return values


def compare_to_baseline(facts: Mapping[str, Any], baseline: Mapping[str, Any]) -> Mapping[str, float]:
    """Against the baseline on the same questions; eval/stats/paired.py defines each value."""
    paired.require_same_items(facts, baseline, _SAME)
    score, base = (its["item_scores"].count("1") / its["items"] for its in (facts, baseline))
    recovery = {"score_recovery_fraction": score / base} if base else {}
    return {**recovery, **paired.compare(*([float(v) for v in its["item_scores"]] for its in (facts, baseline)))}


def _file(options: Options) -> Path:
    if options.path:
        return Path(options.path.removeprefix("path:")).expanduser()
    file = _SHIPPED / f"{options.name}.jsonl"
    if Path(options.name).name != options.name or not file.is_file():
        known = ", ".join(sorted(each.stem for each in _SHIPPED.glob("*.jsonl")))
        raise UserError(f"no questions called '{options.name}' ship (known: {known}): give a file by path")
    return file
