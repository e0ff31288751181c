"""The prompts of a workload with a file of real text: which of them, as what text, and as which token ids.

A seed draws them, the same ones for every engine and recipe and in every round; the first of them are measured.
"""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from bench.contract import address, wire
from bench.contract.errors import CellError, UserError
from bench.contract.job import Report
from bench.contract.prompt import TextPrompt
from bench.contract.spec import Cell
from bench.contract.workload import Closed, Offline, Open, Search, Sweep, Trace, Workload
from bench.formats import folder as model_folder
from bench.load import prompt_files, prompts
from bench.load.prompt_files import PromptFile
from bench.models import chat_template
from bench.run import tokenizer
from bench.run.planned import PlannedArtifact, PlannedRound

_GENERATION, _TOKENIZER = "generation_config.json", "tokenizer.json"
WARMUP_GROUPS = 8  # of a static batch, at the most

TextLoad = Offline | Closed | Open | Sweep | Search


@dataclass(frozen=True)
class DrawnPrompts:
    """`prompts` in the order in which they are asked, `facts` of their file for a record.

    `end_tokens`: ids that end an answer of natural length, for engines that do not know them themselves.
    """

    prompts: tuple[TextPrompt, ...]
    facts: Mapping[str, Any]
    end_tokens: tuple[int, ...] = ()


def reads_file(load: Workload | None) -> TextLoad | None:
    """The workload where it has a file of prompts, else None."""
    return load if load is not None and not isinstance(load, Trace) and load.prompts else None


def unsupported(cell: Cell, artifact: PlannedArtifact, seed: int) -> str:
    """Why the model cannot be asked these prompts, as far as that is known before a run; "" where it can."""
    load = reads_file(cell.workload)
    if load is None:
        return ""
    folder = tokenizer.folder_with_tokenizer(artifact.resolved, make=False)
    if folder is None or _has_own_template(cell, load):
        return "a shape has no tokenizer to read prompts with: name a real model" if artifact.resolved.dummy else ""
    try:
        draw(load, folder, context_of(cell, artifact.context), seed)
        if load.kind == "offline" and load.answers == "natural":
            end_tokens(folder)
    except UserError as error:
        return str(error)
    return ""


def of_round(item: PlannedRound, seed: int, report: Report) -> DrawnPrompts | None:
    """The prompts of a round; None where its workload has no file of them, CellError where they cannot be asked."""
    load = reads_file(item.cell.workload)
    if load is None:
        return None
    try:
        own = _has_own_template(item.cell, load)
        make = item.env != "core"
        folder = None if own else tokenizer.folder_with_tokenizer(item.artifact.resolved, make=make, report=report)
        drawn = draw(load, folder, context_of(item.cell, item.artifact.context), seed)
        ends = end_tokens(folder) if folder and load.answers == "natural" and not load.online else ()
    except UserError as error:
        raise CellError(str(error)) from None
    if folder is None and not own and (load.chat or not load.online):
        raise CellError("these prompts need the model's tokenizer.json: put it into the model's folder")
    return replace(drawn, end_tokens=ends)


def _has_own_template(cell: Cell, load: TextLoad) -> bool:
    """Whether the engine is a server elsewhere that puts messages into a template of its own."""
    url, api = (str(cell.engine.options.get(name) or "") for name in ("url", "api"))
    with contextlib.suppress(ValueError):  # an address that cannot be is the engine's to refuse
        return load.chat and bool(url) and address.api_of(url, "chat" if api == "chat" else "completions") == "chat"
    return False


def context_of(cell: Cell, model_context: int) -> int:
    """Tokens that a sequence may have by the model, or by the engine's option where that is shorter; 0: not known."""
    own = cell.engine.options.get("context")
    limits = [n for n in (model_context, own) if isinstance(n, int) and n > 0]
    return min(limits, default=0)


def draw(load: TextLoad, folder: Path | None, context: int, seed: int) -> DrawnPrompts:
    """The prompts of a load, read by the tokenizer and the chat template of the model in `folder`.

    Without a folder they are texts whose length nobody here knows, and a server applies its own template. UserError
    for a file that holds none, and for a prompt that exceeds the context with its answer and is not to be skipped.
    """
    path = Path(load.prompts).expanduser()
    prompt_files.read(path)
    status = path.stat()
    return _draw(load, folder, context, seed, (status.st_size, status.st_mtime_ns))


@lru_cache(maxsize=32)
def _draw(load: TextLoad, folder: Path | None, context: int, seed: int, _: tuple[int, int]) -> DrawnPrompts:
    file = prompt_files.read(Path(load.prompts).expanduser())
    order = random.Random(f"{seed}/prompts").sample(range(len(file.prompts)), len(file.prompts))  # noqa: S311
    wanted, skipped = min(_count(load), len(file.prompts)), 0
    drawn: list[TextPrompt] = []
    for start in range(0, len(order), wanted):
        for prompt in _as_read([file.prompts[n] for n in order[start : start + wanted]], load, folder):
            if context and len(prompt.ids) + load.new_tokens > context:
                if load.too_long == "refuse":
                    raise UserError(_too_long(load, prompt, context))
                skipped += 1
            elif len(drawn) < wanted:
                drawn.append(prompt)
        if len(drawn) == wanted:
            break
    if not drawn:
        raise UserError(f"every prompt of {load.prompts} exceeds the context of {context} with its answer")
    return DrawnPrompts(tuple(drawn), _facts(load, file, drawn, skipped, folder))


def _as_read(chosen: Sequence[TextPrompt], load: TextLoad, folder: Path | None) -> Iterator[TextPrompt]:
    """The prompts as the model reads them, and their token ids, as far as the model's files are here."""
    if load.chat and folder is not None:
        texts = chat_template.render(folder, [prompt.messages for prompt in chosen])
    else:
        texts = ["\n\n".join(content for _, content in prompt.messages) for prompt in chosen]
    for prompt, text in zip(chosen, texts, strict=True):
        if folder is None:
            yield replace(prompt, text=text)
        else:
            # a chat template writes the special tokens itself
            ids = prompts.encode(text, folder / _TOKENIZER, special=not load.chat)
            yield replace(prompt, text=_as_sent(text, ids, folder) if load.chat else text, ids=ids)


def _as_sent(text: str, ids: tuple[int, ...], folder: Path) -> str:
    """A template's text for a server that takes no ids: without the token that its tokenizer begins a text with."""
    begin = chat_template.special_tokens(folder).get("bos_token", "")
    shorter = text.removeprefix(begin)
    begun = shorter != text and prompts.encode(shorter, folder / _TOKENIZER) == ids
    return shorter if begun else text


def end_tokens(folder: Path) -> tuple[int, ...]:
    """The ids of tokens that end the model's answers, by its settings; UserError where these name none."""
    config = model_folder.read_config(folder) if (folder / model_folder.CONFIG).is_file() else {}
    named = [model_folder.setting(config, "eos_token_id")]
    if (folder / _GENERATION).is_file():
        try:
            generation = wire.read_json(folder / _GENERATION)
        except (OSError, ValueError) as error:
            raise UserError(f"{_GENERATION} of the model cannot be read: {error}") from None
        named.append(generation.get("eos_token_id") if isinstance(generation, dict) else None)
    ids = {n for each in named for n in (each if isinstance(each, list) else [each]) if isinstance(n, int)}
    ids = ids or _end_by_name(folder)
    if not ids:
        raise UserError(
            "the model's files name no token that ends an answer (eos_token_id in generation_config.json or "
            "config.json): set answers: exact"
        )
    return tuple(sorted(ids))


def _end_by_name(folder: Path) -> set[int]:
    """By the tokenizer's own settings, all that is extracted from a single file."""
    try:
        name = chat_template.special_tokens(folder).get("eos_token", "")
    except UserError:
        return set()
    number = prompts.tokenizer_of(folder / _TOKENIZER).token_to_id(name) if name else None
    return set() if number is None else {number}


def _count(load: TextLoad) -> int:
    """How many prompts a load asks at the most, those of its warm-up included."""
    if isinstance(load, Offline):
        return load.repeats + WARMUP_GROUPS
    if isinstance(load, Closed):
        return load.requests + 3 * load.concurrency
    if isinstance(load, Sweep) and load.waits:
        return max(load.requests, 4 * int(load.most)) + 3 * int(load.most)
    rate = load.most if isinstance(load, Sweep) else load.rate_per_s
    return max(load.requests, math.ceil(rate * load.window_s))


def _facts(
    load: TextLoad, file: PromptFile, drawn: Sequence[TextPrompt], skipped: int, folder: Path | None
) -> dict[str, Any]:
    facts = {
        "name": file.name,
        "sha256": file.sha256,
        "read_by": ", ".join(file.kinds),
        "prompts": len(file.prompts),
        "drawn": len(drawn),
        "later_turns": sum(prompt.later_turns for prompt in drawn),
        "too_long": skipped,
    }
    if load.chat and folder is not None:
        facts["chat_template"] = wire.digest(chat_template.template(folder))
    return {"prompt_file": facts}


def _too_long(load: TextLoad, prompt: TextPrompt, context: int) -> str:
    return (
        f"{load.prompts}, line {prompt.line}: a prompt of {len(prompt.ids):,} tokens and {load.new_tokens:,} new ones "
        f"exceed the context of {context:,}: set too_long: skip to leave such prompts out, or lower new_tokens"
    )
