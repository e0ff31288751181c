"""How far calibrated methods move layers' outputs, at the first token of a window and at another one.

An average over all tokens hides what happens at one of them. Where the first token is an attention sink, that
one decides: see docs/attention-sinks.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from quantize.calibration import Calibration
from quantize.first_token import is_windows, replaced

_WINDOWS = 16  # observed of each layer


@dataclass
class OutputErrors:
    """Squared changes of layers' outputs relative to their squares, by kind of layer (the last part of its name).

    Over the first windows of the text: at their first tokens, and at the tokens in their middle. Linear layers
    alone, and only where they get whole windows.
    """

    length: int
    rows: dict[Any, list[Any]] = field(default_factory=dict)
    errors: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    def observe(self, layer: Any, inputs: Any) -> None:
        rows = self.rows.setdefault(layer, [])
        if is_windows(inputs, self.length) and len(rows) < _WINDOWS:
            rows += inputs[: _WINDOWS - len(rows), [0, self.length // 2]].detach().float().cpu()

    def compare(self, layer: Any, name: str, before: Any, after: Any) -> None:
        """Compare two weights [out, in] on the layer's inputs, which are then forgotten."""
        import torch

        rows = self.rows.pop(layer, [])
        if not rows or before.ndim != 2 or before.shape[1] != rows[0].shape[-1]:
            return
        before, after = (weight.detach().float().cpu() for weight in (before, after))
        inputs = torch.stack(rows)
        changes, outputs = ((inputs @ w.T).square().sum(dim=(0, 2)) for w in (after - before, before))
        if float(outputs.min()) > 0:
            first, other = (changes / outputs).tolist()
            self.errors.setdefault(name.rpartition(".")[2], []).append((first, other))

    def facts(self) -> dict[str, Any]:
        """Means over layers, and over those of each kind: [at first tokens, at others]; {} where none was observed."""
        kinds = {kind: [fmean(column) for column in zip(*pairs, strict=True)] for kind, pairs in self.errors.items()}
        every = [pair for pairs in self.errors.values() for pair in pairs]
        if not every:
            return {}
        first, others = (fmean(column) for column in zip(*every, strict=True))
        return {"output_error_first_token": first, "output_error_other_tokens": others, "output_errors_by_kind": kinds}


@contextmanager
def of_gptqmodel(text: Calibration) -> Iterator[OutputErrors]:
    """The errors of the layers that gptqmodel's GPTQ quantizes meanwhile."""
    from gptqmodel.quantization.gptq import GPTQ

    errors = OutputErrors(len(text.ids[0]))
    add, adopt, quantize = GPTQ.process_batch, GPTQ.adopt_hessian_from, GPTQ.quantize

    def adding(self: Any, inputs: Any) -> Any:
        errors.observe(self, inputs)
        return add(self, inputs)

    def adopting(self: Any, leader: Any) -> Any:  # layers with one input share one Hessian
        errors.rows[self] = errors.rows.get(leader, [])
        return adopt(self, leader)

    def quantizing(self: Any, *args: Any, **kwargs: Any) -> Any:
        before = self.module.weight.detach().clone()
        result = quantize(self, *args, **kwargs)
        errors.compare(self, str(self.name), before, result[0])
        return result

    with (
        replaced(GPTQ, "process_batch", adding),
        replaced(GPTQ, "adopt_hessian_from", adopting),
        replaced(GPTQ, "quantize", quantizing),
    ):
        yield errors


@contextmanager
def of_llmcompressor(
    text: Calibration, modifier: type, functions: Any, names: Mapping[Any, str]
) -> Iterator[OutputErrors]:
    """The errors of the layers that a modifier of llm-compressor compresses meanwhile.

    `functions`: the module whose accumulate_hessian the modifier calls. `names`: of layers.
    """
    errors = OutputErrors(len(text.ids[0]))
    add, compress = functions.accumulate_hessian, modifier.compress_modules  # type: ignore[attr-defined]

    def adding(inputs: Any, module: Any, *rest: Any) -> Any:
        errors.observe(module, inputs)
        return add(inputs, module, *rest)

    def compressing(self: Any) -> None:
        before = {module: module.weight.detach().clone() for module in errors.rows}
        compress(self)
        for module, weight in before.items():
            errors.compare(module, names.get(module, ""), weight, module.weight)

    with replaced(functions, "accumulate_hessian", adding), replaced(modifier, "compress_modules", compressing):
        yield errors
