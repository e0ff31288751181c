"""Perplexity of the hf engine against the plain loop of the GPTQ paper's code, on the same text and windows.

Run from the repository's root by the hf environment's interpreter:

    python -m benchmarks.perplexity_parity MODEL_DIR TEXT --context 2048

The plain loop is Transformers alone: the text encoded at once by the model's tokenizer, full windows without overlap,
the mean of the losses that the model itself computes. `--tokens` cuts the text. The last line of the output is the
result as JSON.
"""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

from bench.engines import hf
from bench.engines.hf.session import HfSession
from benchmarks import script
from eval.tasks import perplexity


def main() -> None:
    parser = script.parser(__doc__, context=2048, tokens=0, threads=0)
    parser.add_argument("model", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    options = perplexity.Options(corpus=f"path:{given.text.resolve()}", context=given.context, tokens=given.tokens)
    with hf.open(given.model, script.artifact("hf"), hf.Options(threads=given.threads), given.device) as session:
        began = time.perf_counter()
        facts = perplexity.evaluate(session, options, given.model)
        ours_s = time.perf_counter() - began
        began = time.perf_counter()
        plain, windows = _plain(session, given.model, given.text, given.context, given.tokens)
        plain_s = time.perf_counter() - began
    ours = perplexity.metrics(facts)
    change = ours["perplexity"] / plain - 1
    print(
        f"perplexity {ours['perplexity']:.6f} over {facts['tokens']} tokens in {facts['windows']} windows of "
        f"{given.context}, {ours_s:.1f} s; plain loop {plain:.6f} over {windows} windows, {plain_s:.1f} s: "
        f"{change:+.1e} of it"
    )
    print(json.dumps({**ours, "plain": plain, "windows": windows, "change": change, "s": [ours_s, plain_s]}))


def _plain(session: HfSession, folder: Path, text: Path, context: int, tokens: int) -> tuple[float, int]:
    """The perplexity, and over how many windows; of each window every token but the first is scored."""
    import torch
    from transformers import AutoTokenizer

    ids = AutoTokenizer.from_pretrained(folder)(text.read_text(encoding="utf-8"), return_tensors="pt").input_ids
    ids = ids[:, : tokens or None].to(session.device)
    losses = []
    with torch.inference_mode():
        for start in range(0, ids.shape[1] - context + 1, context):
            window = ids[:, start : start + context]
            losses.append(float(session.model(window, labels=window).loss))
    return math.exp(math.fsum(losses) / len(losses)), len(losses)


if __name__ == "__main__":
    main()
