"""A model without weights for lm-evaluation-harness, which tokenizes, truncates and stops as `--model hf`."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

from lm_eval import utils as lm_eval_utils
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import handle_stop_sequences, has_bos_prefix, normalize_gen_kwargs, postprocess_generated_text

from bench.contract import phase
from bench.contract.errors import UserError
from eval.lm_eval import chat

_NEW_TOKENS = 256  # lm-eval's own limit where a task states none
_CACHED_TEXTS = 64  # more than an item has choices


@dataclass
class Requests:
    """As token ids: (context, continuation), and (prompt, new tokens, stops); `texts` digests them as texts.

    `prompt_texts`: of each prompt its text and, where that is a conversation, its messages; none of one that was cut.
    """

    pairs: list[tuple[list[int], list[int]]] = field(default_factory=list)
    prompts: list[tuple[list[int], int, list[str]]] = field(default_factory=list)
    prompt_texts: list[tuple[str, list[tuple[str, str]]]] = field(default_factory=list)
    truncated: int = 0
    texts: Any = field(default_factory=hashlib.sha256)


@dataclass(frozen=True)
class Replies:
    """For each pair its log-probability in nats and whether it was greedy; for each prompt its new ids, or its text."""

    scores: Sequence[tuple[float, bool]]
    generated: Sequence[Sequence[int] | str]


class TokenLM(TemplateLM):  # type: ignore[misc]  # lm-eval has no types here
    """Records lm-eval's requests, and answers them in order where it has replies."""

    def __init__(self, tokenizer: Any, max_length: int, replies: Replies | None) -> None:
        super().__init__()
        self.tokenizer, self.max_length, self.replies = tokenizer, max_length, replies
        self.requests = Requests()
        self._encode_cached = lru_cache(_CACHED_TEXTS)(self._encode)
        self._messages: dict[str, list[tuple[str, str]]] = {}  # by the text that they were rendered to

    @property
    def eot_token_id(self) -> Any:
        return self.tokenizer.eos_token_id

    @property
    def prefix_token_id(self) -> Any:
        bos = self.tokenizer.bos_token_id
        prefix = self.eot_token_id if bos is None else bos
        if prefix is None:
            raise UserError("the model's tokenizer has neither a BOS nor an EOS token to begin an empty text with")
        return prefix

    @property
    def tokenizer_name(self) -> str:
        return str(self.tokenizer.name_or_path).replace("/", "__")

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> Any:  # noqa: FBT001
        """The ids of a text. A context is passed once per choice, and encoded once."""
        return self._encode_cached(string, add_special_tokens)

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
        text = chat.apply_chat_template(
            self.tokenizer, chat_history, "apply_chat_template", add_generation_prompt=add_generation_prompt
        )
        if add_generation_prompt:
            self._messages[text] = [(message["role"], message["content"]) for message in chat_history]
        return text

    def _loglikelihood_tokens(self, requests: Any, **_: Any) -> list[tuple[float, bool]]:
        for texts, context, continuation in requests:
            self._record_text(texts)
            self._record_pair(context, continuation)
        return self._scores(len(requests))

    def loglikelihood_rolling(self, requests: Any, **_: Any) -> list[float]:
        counts = []
        for request in phase.each(requests, "{done:,} of {total:,} texts"):
            (text,) = request.args
            self._record_text((text,))
            windows = lm_eval_utils.get_rolling_token_windows(
                token_list=self.tok_encode(text),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            )
            pairs = [lm_eval_utils.make_disjoint_window(window) for window in windows]
            for context, continuation in pairs:
                self._record_pair(context, continuation)
            counts.append(len(pairs))
        scores = iter(self._scores(sum(counts)))
        return [math.fsum(next(scores)[0] for _ in range(count)) for count in counts]

    def generate_until(self, requests: Any, **_: Any) -> list[str]:
        for request in phase.each(requests, "{done:,} of {total:,} prompts"):
            self._record_text(request.args)
            self._record_prompt(*request.args)
        first = len(self.requests.prompts) - len(requests)
        if self.replies is None:
            return [""] * len(requests)
        return [
            postprocess_generated_text(self._text(reply), stops, None)
            for reply, (_, _, stops) in zip(self.replies.generated[first:], self.requests.prompts[first:], strict=True)
        ]

    def _text(self, reply: Sequence[int] | str) -> str:
        """A reply as a text; of a server without a first space, where the tokenizer drops that as it decodes."""
        if not isinstance(reply, str):
            return str(self.tokenizer.decode(reply, skip_special_tokens=True))
        return reply.removeprefix(" ") if self._drops_first_space else reply

    @cached_property
    def _drops_first_space(self) -> bool:
        """Whether it decodes the tokens of " b" to "b" where no others come before, as SentencePiece's do."""
        one, both = (self.tokenizer.encode(text, add_special_tokens=False) for text in ("a", "a b"))
        return both[: len(one)] == one and not self.tokenizer.decode(both[len(one) :]).startswith(" ")

    def _record_text(self, texts: Sequence[Any]) -> None:
        self.requests.texts.update(json.dumps(texts, sort_keys=True, default=str).encode())

    def _record_pair(self, context: list[int], continuation: list[int]) -> None:
        """Truncated from the left to `max_length` tokens that are fed: all but the last of the two together."""
        if not continuation:
            raise UserError("the task has an empty choice: there is nothing to score")
        if len(continuation) > self.max_length:
            raise UserError(
                f"the task has a choice of {len(continuation)} tokens, and {self.max_length} fit: "
                "leave such items out, or use a model with a longer context"
            )
        over = max(0, len(context) + len(continuation) - self.max_length - 1)
        self.requests.truncated += over > 0
        self.requests.pairs.append((list(context[over:]), list(continuation)))

    def _scores(self, count: int) -> list[tuple[float, bool]]:
        if self.replies is None:
            return [(0.0, False)] * count
        first = len(self.requests.pairs) - count
        return [(float(logprob), bool(greedy)) for logprob, greedy in self.replies.scores[first : first + count]]

    def _record_prompt(self, text: str, generation: Mapping[str, Any]) -> None:
        settings = normalize_gen_kwargs(dict(generation), _NEW_TOKENS)
        if settings["do_sample"]:
            raise UserError("the task samples its answers, which cannot be compared: set do_sample: false")
        eot = self.eot_token_id
        eos = None if eot is None else self.tokenizer.decode(eot, skip_special_tokens=False)
        stops, new = handle_stop_sequences(settings["until"], eos=eos), settings["max_gen_toks"]
        room = self.max_length + 1 - new
        if room < 1:
            raise UserError(f"the task generates {new} tokens, more than the context of {self.max_length} has room for")
        ids = self.tok_encode(text)
        cut = len(ids) > room
        self.requests.truncated += cut
        self.requests.prompt_texts.append(("", []) if cut else (text, self._messages.get(text, [])))
        self.requests.prompts.append((ids[-room:], new, [stop for stop in stops if stop]))
