"""What a source in q4_1 costs, by rounding its weights once more: the first rounding cannot be measured without them.

Run from the repository's root by the hf environment's interpreter:

    python -m benchmarks.source_rounding MODEL_DIR TEXT --context 2048

MODEL_DIR holds the dequantized model. Its linear layers, the head left out, are rounded to q4_1 (llama.cpp: blocks of
32 weights of a row, the least as offset and a 15th of the range as step, both in float16) twice, each time from the
dequantized weights: in the source's own blocks, which changes next to nothing, and in blocks that begin 16 columns
later, each half on one grid of the source and half on another. A block's range, and so its step, is that of its
neighbours: the second rounding moves a weight about as far as the first did. The last line of the output is the result
as JSON.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from bench.engines import hf
from benchmarks import script
from eval.tasks import perplexity

_BLOCK, _LEVELS = 32, 16


def main() -> None:
    parser = script.parser(__doc__, context=2048, tokens=0, threads=0)
    parser.add_argument("model", type=Path)
    parser.add_argument("text", type=Path)
    given = parser.parse_args()
    options = perplexity.Options(corpus=f"path:{given.text.resolve()}", context=given.context, tokens=given.tokens)
    results: dict[str, dict[str, float]] = {}
    for name, shift in (("dequantized", None), ("same blocks", 0), ("blocks shifted by half", _BLOCK // 2)):
        with hf.open(given.model, script.artifact("hf"), hf.Options(threads=given.threads), "cpu") as session:
            error = 0.0 if shift is None else _round(session.model, shift)
            facts = perplexity.evaluate(session, options, given.model)
        results[name] = {"perplexity": perplexity.metrics(facts)["perplexity"], "relative_error": error}
        change = results[name]["perplexity"] / results["dequantized"]["perplexity"] - 1
        print(
            f"{name}: perplexity {results[name]['perplexity']:.4f} over {facts['tokens']} tokens ({change:+.2%}); "
            f"weights moved by {error:.2%} of their root mean square",
            flush=True,
        )
    print(json.dumps(results))


def _round(model: Any, shift: int) -> float:
    """Round the linear layers in place; the root mean square of what they moved by, over theirs."""
    import torch

    moved = total = 0.0
    head = model.get_output_embeddings()
    for module in model.modules():
        if isinstance(module, torch.nn.Linear) and module is not head:
            rounded = _q4_1(module.weight.data.roll(-shift, dims=1)).roll(shift, dims=1)
            moved += float((rounded - module.weight.data).square().sum())
            total += float(module.weight.data.square().sum())
            module.weight.data.copy_(rounded)
    return math.sqrt(moved / total)


def _q4_1(weight: Any) -> Any:
    """Weights [out, in] as q4_1 holds them, in float32."""
    blocks = weight.reshape(-1, _BLOCK)
    least, most = blocks.amin(dim=1, keepdim=True), blocks.amax(dim=1, keepdim=True)
    step = (most - least) / (_LEVELS - 1)
    levels = ((blocks - least) / step.clamp(min=1e-30) + 0.5).floor().clamp(0, _LEVELS - 1)
    return (levels * step.half().float() + least.half().float()).reshape(weight.shape)


if __name__ == "__main__":
    main()
