"""What the hf engine costs its user: a Session's TTFT and tokens/s against bare `model.generate`.

Run from the repository's root by the hf environment's interpreter: `python -m benchmarks.overhead MODEL_DIR`.
Both sides use the same loaded model. Rounds are ABBA (ours, bare, bare, ours): a drifting machine weighs on
both alike. A round's ratio is of its two sums; bare TTFT is a whole `generate(max_new_tokens=1)`. The last
line of the output is the result as JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

from bench.contract.record import Artifact, Audit
from bench.engines import hf
from bench.engines.hf.session import HfSession

_TARGETS = {"ttft": (0.97, 1.03), "tokens_per_s": (0.97, float("inf"))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--prompt", type=int, default=128, help="tokens of each prompt")
    parser.add_argument("--new", type=int, default=64, help="tokens made from each prompt")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=0, help="0: PyTorch's own choice")
    given = parser.parse_args()
    audit = Audit("hf", 0, 0, 0, 0, 0, 0.0, 0.0, tied_head=False, vocab_size=0, context=0)
    artifact = Artifact("", "hf", "", (), audit)
    with hf.open(given.model, artifact, hf.Options(threads=given.threads), given.device) as session:
        report(measure(session, given.batch, given.prompt, given.new, given.rounds), session.receipts())


def measure(session: HfSession, batch: int, prompt: int, new: int, rounds: int) -> dict[str, list[tuple[float, float]]]:
    """(ours, bare) of each round: `ttft` in seconds and `tokens_per_s`. Two rounds before them warm up."""
    found: dict[str, list[tuple[float, float]]] = {"ttft": [], "tokens_per_s": []}
    vocab = session.model.config.get_text_config().vocab_size
    made = 2 * new * batch
    for round_ in range(-2, rounds):
        seeds = [13 * round_ + 77 * row for row in range(batch)]
        prompts = [[(7 * i + seed) % (vocab - 8) + 4 for i in range(prompt)] for seed in seeds]
        ours, bare = [_ours(session, prompts, new)], [_bare(session, prompts, new)]
        bare.append(_bare(session, prompts, new))
        ours.append(_ours(session, prompts, new))
        if round_ >= 0:
            (our_first, our_whole), (bare_first, bare_whole) = map(_sums, (ours, bare))
            found["ttft"].append((our_first / 2, bare_first / 2))
            found["tokens_per_s"].append((made / our_whole, made / bare_whole))
    return found


def _sums(pairs: list[tuple[float, float]]) -> tuple[float, float]:
    return sum(a for a, _ in pairs), sum(b for _, b in pairs)


def _ours(session: HfSession, prompts: list[list[int]], new: int) -> tuple[float, float]:
    """Seconds to the first token's stamp and to the end of the iteration."""
    began = time.perf_counter()
    steps = list(session.generate(prompts, new))
    return steps[0].time_s - began, time.perf_counter() - began


def _bare(session: HfSession, prompts: list[list[int]], new: int) -> tuple[float, float]:
    """Seconds of `generate` for one token and for all: what a user's own script reads."""
    import torch

    model: Any = session.model
    spent = []
    for tokens in (1, new):
        began = time.perf_counter()
        ids = torch.tensor(prompts, device=session.device)
        mask = torch.ones_like(ids)
        model.generate(ids, attention_mask=mask, max_new_tokens=tokens, do_sample=False).tolist()
        spent.append(time.perf_counter() - began)
    return spent[0], spent[1]


def report(found: dict[str, list[tuple[float, float]]], receipts: Any) -> None:
    summary: dict[str, Any] = {"receipts": dict(receipts)}
    print(f"{'':14}{'ours':>10}{'bare':>10}{'ratio':>8}  ratio, min to max over rounds")
    for name, pairs in found.items():
        ours, bare = (statistics.median(side) for side in zip(*pairs, strict=True))
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
