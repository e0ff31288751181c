"""Caches of the llamacpp engine against llama.cpp's own tools, on the same file, text, types, depths and threads.

Run from the repository's root by the llamacpp environment's interpreter, once
`python -m bench envs build llamacpp --tools` has printed where the tools are:

    python -m benchmarks.cache_parity MODEL.gguf TEXT --tools DIR

Quality: the divergence of each cache from one of f16 against llama-perplexity's --kl-divergence with -ctk and -ctv, in
windows of 512 tokens. Speed: TPOT after each depth against llama-bench's -d, ours and theirs by turns (ABBA); the
medians of the rounds' ratios. `--caches` are KEYS/VALUES. The last line of the output is the result as JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.engines import llamacpp
from benchmarks import script
from eval.tasks import divergence

_CHARACTERS = 60_000  # that are scored


def main() -> None:
    parser = script.parser(__doc__, threads=2, rounds=5, new=64)
    parser.add_argument("model", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("--tools", type=Path, required=True, help="folder of llama-bench and llama-perplexity")
    parser.add_argument("--caches", nargs="+", default=["f16/f16", "q8_0/q8_0", "q4_0/q4_0"])
    parser.add_argument("--depths", nargs="+", type=int, default=[512, 2048, 7936])
    parser.add_argument("--only", choices=["quality", "speed"])
    given = parser.parse_args()
    results: dict[str, Any] = {}
    if given.only != "speed":
        with tempfile.TemporaryDirectory() as scratch:
            results["quality"] = quality(Path(scratch), given)
    if given.only != "quality":
        results["speed"] = {
            f"{cache} at {depth}": speed(cache, depth, given) for cache in given.caches for depth in given.depths
        }
    print(json.dumps(results))


def quality(scratch: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Per cache mean KL and same top-1 from the first one, of both, with their errors."""
    text = scratch / "text.txt"
    text.write_text(given.text.read_text(encoding="utf-8")[:_CHARACTERS].rstrip() + ".", encoding="utf-8")
    theirs = dict(_llama_perplexity(text, scratch / "base.kld", given))
    task = divergence.Options(corpus=f"path:{text}", context=512, convention="llama.cpp")
    reference, folder, results = scratch / "reference", given.model.parent, {}
    reference.mkdir()
    for cache in given.caches:
        with _open(cache, given) as session:
            if cache == given.caches[0]:
                facts = divergence.prepare(session, task, folder, reference)
                facts = {**facts, "digest": "", "engine": "llamacpp", "artifact": cache}
                (reference / "reference.json").write_text(json.dumps(facts))
            facts = divergence.evaluate(session, task, folder, reference)
        means, other = script.divergence_means(facts), theirs[cache]
        ours = {"kl": means["kl_mean"], "top": 100 * means["top1_agreement_fraction"]}
        results[cache] = {"ours": ours, "theirs": other}
        print(
            f"{cache:<12} KL {ours['kl']:.6f}, theirs {other['kl']:.6f} ± {other['kl_error']:.6f}; "
            f"same top {ours['top']:.3f} %, theirs {other['top']:.3f} ± {other['top_error']:.3f} %"
        )
    return results


def _llama_perplexity(text: Path, base: Path, given: argparse.Namespace) -> Iterator[tuple[str, dict[str, float]]]:
    common = ["-m", str(given.model), "-f", str(text), "-c", "512", "-t", str(given.threads), "--no-escape"]
    common += ["--kl-divergence-base", str(base)]
    script.llama_tool(given.tools, "llama-perplexity", *common, *_types(given.caches[0]))
    for cache in given.caches:
        words = [*common, *_types(cache), "--kl-divergence"]
        output = script.llama_tool(given.tools, "llama-perplexity", *words, ending="Same top p:")
        patterns = {
            "kl": r"Mean\s+KLD:\s+(-?[\d.]+)",
            "kl_error": r"Mean\s+KLD:\s+-?[\d.]+ ±\s+([\d.]+)",
            "top": r"Same top p:\s+([\d.]+)",
            "top_error": r"Same top p:\s+[\d.]+ ±\s+([\d.]+)",
        }
        yield cache, {name: script.number(pattern, output) for name, pattern in patterns.items()}


def speed(cache: str, depth: int, given: argparse.Namespace) -> dict[str, Any]:
    """The median over rounds of ours / theirs, and ours in milliseconds a token."""
    rounds: list[dict[str, float]] = []
    for _ in range(given.rounds):
        first = _ours(cache, depth, given)
        theirs = [_llama_bench(cache, depth, given), _llama_bench(cache, depth, given)]
        ours = [first, _ours(cache, depth, given)]
        rounds.append({"ours_s": statistics.fmean(ours), "theirs_s": statistics.fmean(theirs)})
    ratio = statistics.median(r["ours_s"] / r["theirs_s"] for r in rounds)
    ours_ms = 1e3 * statistics.median(r["ours_s"] for r in rounds)
    print(f"{cache:<12} at {depth:>5}: TPOT {ours_ms:.3f} ms, {ratio:.3f} of llama-bench's ({len(rounds)} rounds)")
    return {"ratio": ratio, "tpot_ms": ours_ms, "rounds": rounds}


def _ours(cache: str, depth: int, given: argparse.Namespace) -> float:
    """Seconds of a decode step after `depth` tokens, with the model loaded anew, as by llama-bench."""
    (context,) = script.random_prompts(1, depth, 2)
    with _open(cache, given) as session:
        for prompt in script.random_prompts(2, 1, 3):  # the first of them warms up
            steps = session.generate_at_depth([context], [prompt], given.new + 1, time.perf_counter)
            times = [step.time_s for step in steps]
    return float(times[-1] - times[0]) / int(given.new)


def _llama_bench(cache: str, depth: int, given: argparse.Namespace) -> float:
    words = ["-m", str(given.model), "-t", str(given.threads), "-r", "1", "-o", "json", "-fa", "1", *_types(cache)]
    output = script.llama_tool(given.tools, "llama-bench", *words, "-p", "0", "-n", str(given.new), "-d", str(depth))
    return 1 / float(json.loads(output)[0]["avg_ts"])


def _types(cache: str) -> list[str]:
    keys, _, values = cache.partition("/")
    return ["-ctk", keys, "-ctv", values]


def _open(cache: str, given: argparse.Namespace) -> Any:
    keys, _, values = cache.partition("/")
    options = llamacpp.Options(threads=given.threads, kv_dtype_k=keys, kv_dtype_v=values)  # type: ignore[arg-type]
    return llamacpp.open(given.model, script.artifact("gguf"), options, "cpu")


if __name__ == "__main__":
    main()
