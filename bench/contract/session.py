"""What an engine's session is: a loaded model that generates tokens, and gives logits and scores of choices."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

from bench.contract.errors import UserError


@dataclass(frozen=True)
class DecodeStep:
    """One decode step of a batch: when its tokens were on the host (time.perf_counter), and one per sequence."""

    time_s: float
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class LogitBlock:
    """Next-token logits of positions start .. start + rows: float32 NumPy array [rows, vocab]."""

    start: int
    logits: Any


@dataclass(frozen=True)
class Question:
    """A context and what may follow it, as token ids: at least one id in the context and in each choice."""

    context: tuple[int, ...]
    choices: tuple[tuple[int, ...], ...]


class ChoiceScore(NamedTuple):
    """Of one choice: the sum of its tokens' log-probabilities (nats), and whether each was the likeliest."""

    logprob: float
    is_greedy: bool


@dataclass(frozen=True)
class Prompt:
    """Token ids to continue greedily by at most `new_tokens`; `Ended` may stop it sooner."""

    ids: tuple[int, ...]
    new_tokens: int


Ended = Callable[[int, Sequence[int]], bool]


class Session(Protocol):
    """A loaded model in one engine, whose class inherits `encode` where the weights have no tokenizer with them."""

    def generate(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> Iterator[DecodeStep]:
        """Greedy decoding of a static batch of equally long prompts, EOS ignored: exactly `new_tokens` steps.

        The engine stamps each step after its device sync; it may be yielded later.
        """

    def logits(self, ids: Sequence[int]) -> Iterator[LogitBlock]:
        """Next-token logits for every position of one sequence, in order, in blocks that fit in memory.

        The last position's may be missing where the sequence fills the context.
        """

    def encode(self, text: str) -> tuple[list[int], list[int]]:  # noqa: ARG002
        """Token ids by the tokenizer stored with the weights, and the UTF-8 bytes of the text each adds.

        Special tokens are added as the model adds them, and have 0 bytes. Asked only where the artifact has
        no tokenizer.json (a bare GGUF file); UserError where the weights have no tokenizer with them.
        """
        raise UserError("the artifact has no tokenizer.json: a score needs the model's own fast tokenizer")

    def receipts(self) -> Mapping[str, str]:
        """Kernel, weight dtype, compute dtype, attention implementation, threads, device: as they really are.

        `product_dtype`: the type that matrices are multiplied in, where that is not the activations' own.
        """

    def memory(self) -> Mapping[str, int]:
        """The engine's own accounting in bytes.

        `weights_bytes`, and where it can tell `kv_bytes`, `peak_bytes`, and `unread_bytes`: of the weights
        those that a decode step does not read, as an input embedding that is not the head too.
        """


@runtime_checkable
class LoglikelihoodSession(Session, Protocol):
    """A session that scores choices faster than by the logits of each: by batches, and contexts fed once."""

    def loglikelihood(self, questions: Sequence[Question]) -> Iterator[tuple[int, list[ChoiceScore]]]:
        """Each question's index and scores, in any order; log-softmax in float32 or wider, full vocabulary."""


@runtime_checkable
class GenerateUntilSession(Session, Protocol):
    """A session that continues prompts of any length together, each until it has ended."""

    def generate_until(self, prompts: Sequence[Prompt], ended: Ended) -> Iterator[tuple[int, list[int]]]:
        """Each prompt once, in any order: its index, and the tokens that follow it. Greedy, EOS ignored.

        `ended(index, tokens)` is called after each new token, the last of which is the one that ended the prompt.
        """


@runtime_checkable
class DeepSession(Session, Protocol):
    """A session that can fill its KV cache before a clock starts."""

    def generate_at_depth(
        self,
        contexts: Sequence[Sequence[int]],
        prompts: Sequence[Sequence[int]],
        new_tokens: int,
        start: Callable[[], None],
    ) -> Iterator[DecodeStep]:
        """As `generate`, of prompts that follow equally long contexts, one each.

        The contexts are in the KV cache, and the device is in sync, when it calls `start`, which starts the clock.
        They may still be there from the last call; nothing that followed them then is.
        """


@runtime_checkable
class LayerSession(Session, Protocol):
    """A session that gives single layers of its model, to be put into the unquantized one."""

    device: str

    def layers(self, model: Any) -> Mapping[str, Any]:
        """Torch modules by the names that `model` has for its own, the unquantized one, on the same device.

        Linear layers, and embeddings where these are quantized too. They compute as the format is unpacked, from
        float32 to float32.
        """

    def other_parameters(self, model: Any) -> Mapping[str, Any]:
        """Torch tensors outside of `layers`, by the names of `model`: norms, biases, what is not quantized."""
