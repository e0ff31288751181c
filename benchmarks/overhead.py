"""What the hf engine costs its user: a Session's TTFT and tokens/s against bare `model.generate`.

Run from the repository's root by the hf environment's interpreter: `python -m benchmarks.overhead MODEL_DIR`.
Both use the same loaded model. Rounds are ABBA (ours, bare, bare, ours), so that a drifting machine affects
both equally. A round's ratio is of its two sums; bare TTFT is a whole `generate(max_new_tokens=1)`. The last
line of the output is the result as JSON.
"""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path
from typing import Any

from bench.engines import hf
from bench.engines.hf.session import HfSession
from benchmarks import script

_TARGETS = {"ttft": (0.97, 1.03), "tokens_per_s": (0.97, float("inf"))}
Pairs = list[tuple[float, float]]


def main() -> None:
    parser = script.parser(__doc__, prompt=128, new=64, batch=1, rounds=20)
    parser.add_argument("model", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=0, help="0: PyTorch's own choice")
    given = parser.parse_args()
    with hf.open(given.model, script.artifact("hf"), hf.Options(threads=given.threads), given.device) as session:
        report(measure(session, given.batch, given.prompt, given.new, given.rounds), session.receipts())


def measure(session: HfSession, batch: int, prompt: int, new: int, rounds: int) -> dict[str, Pairs]:
    """(ours, bare) of each round: `ttft` in seconds and `tokens_per_s`. Two rounds before them warm up."""
    results: dict[str, Pairs] = {"ttft": [], "tokens_per_s": []}
    vocab = session.model.config.get_text_config().vocab_size
    tokens = 2 * new * batch
    for number in range(-2, rounds):
        seeds = [13 * number + 77 * row for row in range(batch)]
        prompts = [[(7 * i + seed) % (vocab - 8) + 4 for i in range(prompt)] for seed in seeds]
        ours, bare = [_ours(session, prompts, new)], [_bare(session, prompts, new)]
        bare.append(_bare(session, prompts, new))
        ours.append(_ours(session, prompts, new))
        if number >= 0:
            (our_first, our_whole), (bare_first, bare_whole) = (map(sum, zip(*p, strict=True)) for p in (ours, bare))
            results["ttft"].append((our_first / 2, bare_first / 2))
            results["tokens_per_s"].append((tokens / our_whole, tokens / bare_whole))
    return results


def _ours(session: HfSession, prompts: list[list[int]], new: int) -> tuple[float, float]:
    """Seconds to the first token's stamp and to the end of the iteration."""
    began = time.perf_counter()
    steps = list(session.generate(prompts, new))
    return steps[0].time_s - began, time.perf_counter() - began


def _bare(session: HfSession, prompts: list[list[int]], new: int) -> tuple[float, float]:
    """Seconds of `generate` for one token and for all: what a user's own script measures."""
    import torch

    model: Any = session.model
    spent_s = []
    for tokens in (1, new):
        began = time.perf_counter()
        ids = torch.tensor(prompts, device=session.device)
        mask = torch.ones_like(ids)
        model.generate(ids, attention_mask=mask, max_new_tokens=tokens, do_sample=False).tolist()
        spent_s.append(time.perf_counter() - began)
    return spent_s[0], spent_s[1]


def report(results: dict[str, Pairs], receipts: Any) -> None:
    summary: dict[str, Any] = {"receipts": dict(receipts)}
    print(f"{'':14}{'ours':>10}{'bare':>10}{'ratio':>8}  ratio, min to max over rounds")
    for name, pairs in results.items():
        ours, bare = map(statistics.median, zip(*pairs, strict=True))
        ratios = [a / b for a, b in pairs]
        ratio, (low, high) = statistics.median(ratios), _TARGETS[name]
        verdict = "within" if low <= ratio <= high else "OUTSIDE"
        print(
            f"{name:14}{ours:10.5g}{bare:10.5g}{ratio:8.3f}  {min(ratios):.3f} to {max(ratios):.3f}, "
            f"{verdict} {low} to {high}, {len(ratios)} rounds"
        )
        summary[name] = {"ours": ours, "bare": bare, "ratio": ratio, "min": min(ratios), "max": max(ratios)}
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
