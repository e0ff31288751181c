"""A Transformers model as blocks one after another: passes that begin at any of them, with any layer replaced.

The model's own forward runs each time, so that masks, positions and the head are its own; blocks before the first one
that changes hand on what was computed once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from bench.contract.errors import UserError, first_line

_PASS_TOKENS = 1024  # of the windows in one pass


def load(folder: Path, device: str) -> Any:
    """The causal language model of a folder in float32, in eval mode; UserError where Transformers cannot load it."""
    import torch
    from transformers import AutoModelForCausalLM

    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, trust_remote_code=False, use_safetensors=True
        )
    except (OSError, ValueError) as error:
        raise UserError(f"Transformers cannot load the unquantized model ({first_line(error)})") from error
    return model.to(device).eval()


def matrices(model: Any) -> dict[str, Any]:
    """Modules whose weight is a matrix: linear layers, GPT-2's Conv1D, embeddings."""
    return {name: m for name, m in model.named_modules() if getattr(getattr(m, "weight", None), "ndim", 0) == 2}


class Network:
    """A model and windows of token ids, all of one length; `states` are the inputs of block `at`, a pass each."""

    def __init__(self, model: Any, windows: Sequence[Sequence[int]]) -> None:
        """UserError where the model has no list of blocks."""
        import torch

        self.model = model
        self.name, self.blocks = _blocks(model)
        self.batch = max(1, _PASS_TOKENS // len(windows[0]))
        self.ids = [
            torch.tensor(windows[i : i + self.batch], device=model.device) for i in range(0, len(windows), self.batch)
        ]
        self.at = 0
        self.states: list[Any] = []
        self.returns_tuple = False  # of a block; known from the first pass through one

    def start(self, layer: str) -> int:
        """The first block whose output a layer changes; their number for the head, 0 for what is before them."""
        head = self.model.get_output_embeddings()
        if head is not None and self.model.get_submodule(layer) is head:
            return len(self.blocks)
        rest = layer.removeprefix(f"{self.name}.")
        return int(rest.partition(".")[0]) if rest != layer else 0

    def advance(self, block: int) -> None:
        """Compute the inputs of a block no earlier than `at`, and forget those of the blocks before."""
        while self.at < block:
            self.states = [self._output(i) for i in range(len(self.ids))]
            self.at += 1

    def logits(self, layers: Mapping[str, Any]) -> Iterator[Any]:
        """Of each pass in turn, [windows, tokens, vocabulary], with these layers in place of the model's own.

        They are in blocks from `at` on, or behind them.
        """
        import torch

        with torch.no_grad(), self._replaced(layers):
            for i, ids in enumerate(self.ids):
                with self._skipped(i):
                    yield self.model(input_ids=ids, use_cache=False).logits

    def _output(self, i: int) -> Any:
        """What block `at` makes of the states of a pass."""
        import torch

        outputs: list[Any] = []

        def record(_module: Any, _inputs: Any, output: Any) -> None:
            self.returns_tuple = isinstance(output, tuple)
            outputs.append(output[0] if self.returns_tuple else output)
            raise _BlockDoneError

        hook = self.blocks[self.at].register_forward_hook(record)
        try:
            with torch.no_grad(), self._skipped(i), suppress(_BlockDoneError):
                self.model(input_ids=self.ids[i], use_cache=False)
        finally:
            hook.remove()
        return outputs[0]

    @contextmanager
    def _skipped(self, i: int) -> Iterator[None]:
        """Blocks before `at` compute nothing; the last of them hands on the states of a pass."""
        before = self.blocks[: self.at]
        for index, block in enumerate(before):
            block.forward = self._passing(i if index == self.at - 1 else None)
        try:
            yield
        finally:
            for block in before:
                del block.forward  # the class's own is behind it

    def _passing(self, i: int | None) -> Callable[..., Any]:
        """The forward of a block that hands on the states of a pass; those that it is given where `i` is None."""

        def passing(*args: Any, **kwargs: Any) -> Any:
            given = args[0] if args else kwargs["hidden_states"]
            states = given if i is None else self.states[i]
            return (states,) if self.returns_tuple else states

        return passing

    @contextmanager
    def _replaced(self, layers: Mapping[str, Any]) -> Iterator[None]:
        own = {name: self.model.get_submodule(name) for name in layers}
        try:
            for name, layer in layers.items():
                self.model.set_submodule(name, layer)
            yield
        finally:
            for name, layer in own.items():
                self.model.set_submodule(name, layer)


class _BlockDoneError(Exception):
    """A block's output is known; the rest of the model need not be computed."""


def _blocks(model: Any) -> tuple[str, Any]:
    """The name and the list of the model's blocks: the longest list of modules that is in no other (experts)."""
    from torch.nn import ModuleList

    lists = [
        (name, m)
        for name, m in model.named_modules()
        if isinstance(m, ModuleList) and len(m) and not any(part.isdecimal() for part in name.split("."))
    ]
    if not lists:
        raise UserError(f"{type(model).__name__} has no list of blocks: its layers are not measured singly")
    return max(lists, key=lambda named: len(named[1]))
