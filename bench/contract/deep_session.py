"""What an engine's session has that can fill its KV cache before a clock starts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, runtime_checkable

from bench.contract.hooks import DecodeStep, Session


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
