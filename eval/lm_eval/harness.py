"""lm-evaluation-harness without a model in it: its tasks' requests as token ids, and its verdict on replies.

lm-eval runs here twice, in its own environment: first against a language model that notes what it is asked
and knows no answer, then against the same one with the replies an engine gave to those very token ids. What
tokenizes, cuts and stops is lm-eval's own rule for `--model hf`, so that a figure is that of `--model hf` on
the same weights.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from lm_eval import simple_evaluate
from lm_eval import utils as lm_eval_utils
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import handle_stop_sequences, has_bos_prefix, normalize_gen_kwargs, postprocess_generated_text
from lm_eval.tasks import TaskManager

from bench import paths
from bench.contract import plugins
from bench.contract.errors import UserError

TASKS = paths.CONFIGS / "tasks"
_NEW_TOKENS = 256  # lm-eval's own limit where a task states none
_REMEMBERED = 64  # texts, more than an item has choices


@dataclass
class Requests:
    """What lm-eval asked: (context, continuation) pairs and (prompt, new tokens, stops), as token ids.

    `texts` is a digest of all that was asked as lm-eval worded it, whatever tokenizer cut it.
    """

    pairs: list[tuple[list[int], list[int]]] = field(default_factory=list)
    prompts: list[tuple[list[int], int, list[str]]] = field(default_factory=list)
    truncated: int = 0
    texts: Any = field(default_factory=hashlib.sha256)


@dataclass(frozen=True)
class Replies:
    """For each pair its log-probability in nats and whether it was greedy; for each prompt its new ids."""

    scores: Sequence[tuple[float, bool]]
    written: Sequence[Sequence[int]]


class TokenLM(TemplateLM):  # type: ignore[misc]  # lm-eval has no types here
    """A language model for lm-eval that notes requests, and answers them in order where it has replies."""

    def __init__(self, tokenizer: Any, max_length: int, replies: Replies | None) -> None:
        super().__init__()
        self.tokenizer, self.max_length, self.replies = tokenizer, max_length, replies
        self.requests = Requests()
        self.encoded = lru_cache(_REMEMBERED)(self._encode)

    @property
    def eot_token_id(self) -> Any:
        return self.tokenizer.eos_token_id

    @property
    def prefix_token_id(self) -> Any:
        bos = self.tokenizer.bos_token_id
        prefix = self.eot_token_id if bos is None else bos
        if prefix is None:
            raise UserError("the model's tokenizer has neither a first nor an end token to begin an empty text")
        return prefix

    @property
    def tokenizer_name(self) -> str:
        return str(self.tokenizer.name_or_path).replace("/", "__")

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> Any:  # noqa: FBT001
        """The ids of a text. A context comes once a choice, and is encoded once."""
        return self.encoded(string, add_special_tokens)

    def _encode(self, string: str, add_special_tokens: bool | None) -> Any:  # noqa: FBT001
        flags = {} if add_special_tokens is None else {"add_special_tokens": add_special_tokens}
        if add_special_tokens is None and has_bos_prefix(string, self.tokenizer.decode(self.prefix_token_id)):
            flags = {"add_special_tokens": False}
        return self.tokenizer.encode(string, **flags)

    def apply_chat_template(
        self,
        chat_history: list[dict[str, str]],
        add_generation_prompt: bool = True,  # noqa: FBT001, FBT002
    ) -> Any:
        return self.tokenizer.apply_chat_template(
            chat_history,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )

    def _loglikelihood_tokens(self, requests: Any, **_: Any) -> list[tuple[float, bool]]:
        for texts, context, continuation in requests:
            self._noted(texts)
            self._pair(context, continuation)
        return self._scores(len(requests))

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> list[float]:  # noqa: FBT001, FBT002
        del disable_tqdm
        counts = []
        for request in requests:
            (text,) = request.args
            self._noted((text,))
            windows = lm_eval_utils.get_rolling_token_windows(
                token_list=self.tok_encode(text),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            )
            pairs = [lm_eval_utils.make_disjoint_window(window) for window in windows]
            for context, continuation in pairs:
                self._pair(context, continuation)
            counts.append(len(pairs))
        found = iter(self._scores(sum(counts)))
        return [math.fsum(next(found)[0] for _ in range(count)) for count in counts]

    def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:  # noqa: FBT001, FBT002
        del disable_tqdm
        for request in requests:
            self._noted(request.args)
            self._prompt(*request.args)
        first = len(self.requests.prompts) - len(requests)
        if self.replies is None:
            return [""] * len(requests)
        return [
            postprocess_generated_text(self.tokenizer.decode(ids, skip_special_tokens=True), stops, None)
            for ids, (_, _, stops) in zip(self.replies.written[first:], self.requests.prompts[first:], strict=True)
        ]

    def _noted(self, texts: Sequence[Any]) -> None:
        self.requests.texts.update(json.dumps(texts, sort_keys=True, default=str).encode())

    def _pair(self, context: list[int], continuation: list[int]) -> None:
        """Cut from the left to `max_length` tokens that are fed: all but the last one of the two together."""
        if not continuation:
            raise UserError("the task has a choice of no token: there is nothing to score")
        if len(continuation) > self.max_length:
            raise UserError(
                f"the task has a choice of {len(continuation)} tokens, and {self.max_length} fit: "
                "leave such items out, or take a model with a longer context"
            )
        over = max(0, len(context) + len(continuation) - self.max_length - 1)
        self.requests.truncated += over > 0
        self.requests.pairs.append((list(context[over:]), list(continuation)))

    def _scores(self, count: int) -> list[tuple[float, bool]]:
        if self.replies is None:
            return [(0.0, False)] * count
        first = len(self.requests.pairs) - count
        return [(float(logprob), bool(greedy)) for logprob, greedy in self.replies.scores[first : first + count]]

    def _prompt(self, text: str, asked: Mapping[str, Any]) -> None:
        settings = normalize_gen_kwargs(dict(asked), _NEW_TOKENS)
        if settings["do_sample"]:
            raise UserError("the task samples its answers: only greedy ones compare, set do_sample: false")
        eot = self.eot_token_id
        eos = None if eot is None else self.tokenizer.decode(eot, skip_special_tokens=False)
        stops, new = handle_stop_sequences(settings["until"], eos=eos), settings["max_gen_toks"]
        room = self.max_length + 1 - new
        if room < 1:
            raise UserError(f"the task writes {new} tokens, more than {self.max_length} can hold")
        ids = self.tok_encode(text)
        self.requests.truncated += len(ids) > room
        self.requests.prompts.append((ids[-room:], new, [stop for stop in stops if stop]))


def run(options: Any, folder: Path, max_length: int, replies: Replies | None) -> tuple[TokenLM, Any]:
    """lm-eval's results for the options of eval/tasks/lm_eval.py, and the model it asked."""
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    model = TokenLM(_tokenizer(folder), max_length, replies)
    try:
        found = simple_evaluate(
            model=model,
            tasks=[options.tasks],
            task_manager=_manager(options),
            num_fewshot=None if options.num_fewshot < 0 else options.num_fewshot,
            limit=options.limit or None,
            bootstrap_iters=0 if replies is None else 1000,
            apply_chat_template=options.apply_chat_template,
            system_instruction=options.system_instruction or None,
            random_seed=options.seed,
            numpy_random_seed=options.seed,
            torch_random_seed=None,
            fewshot_random_seed=options.seed,
        )
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"lm-eval cannot run the task '{options.tasks}': {_cause(error)}") from error
    if options.tasks not in found["results"]:
        names = ", ".join(sorted(found["results"]))
        raise UserError(f"'{options.tasks}' is several tasks without a common score: name them one by one: {names}")
    return model, found


def _manager(options: Any) -> Any:
    """lm-eval's own tasks are looked through (seconds) only for a name that is in no folder given here."""
    folders = [str(TASKS)]
    if options.include_path:
        folders.append(options.include_path.removeprefix("path:"))
    metadata = {"data": options.data.removeprefix("path:")} if options.data else None
    manager = TaskManager(include_path=folders, include_defaults=False, metadata=metadata)
    if options.tasks not in manager.all_tasks:
        manager = TaskManager(include_path=folders, metadata=metadata)
    if options.tasks not in manager.all_tasks:
        ours = sorted(f.stem for f in TASKS.glob("*.yaml"))
        said = plugins.unknown("lm-eval task", options.tasks, tuple(manager.all_tasks)).partition(" (known")[0]
        raise UserError(f"{said.rstrip(':')} (here: {', '.join(ours)}; lm-eval's own: `lm_eval ls tasks`)")
    return manager


def _tokenizer(folder: Path) -> Any:
    """The model's, as lm-eval's `--model hf` loads it."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise UserError(f"the model's tokenizer cannot be loaded: {_cause(error)}") from error


def _cause(error: BaseException) -> str:
    """What began it, in a line: a dataset's loader wraps what it met."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
