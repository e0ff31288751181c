"""What these scripts share: options, prompts, programs of others, and rounds of ours and theirs by turns."""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.contract.record import Artifact, Audit

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "models" / "demo"
_TRIES = 20  # of a tool, until its last lines are there
_HELP = {
    "prompt": "tokens of a prompt",
    "new": "tokens generated for each prompt",
    "requests": "of a turn, without warm-up; at most 250",
    "limit": "items of each task; 0: all",
    "tokens": "of each answer, in the timed runs",
}
# A benchmark of vLLM without vLLM's entry point, which needs a package that is called vllm.
_VLLM_BENCHMARK = """
from vllm.benchmarks import {0}
from vllm.utils.argparse_utils import FlexibleArgumentParser
parser = FlexibleArgumentParser()
{0}.add_cli_args(parser)
{0}.main(parser.parse_args())
"""


def parser(doc: str | None, **defaults: int) -> argparse.ArgumentParser:
    """A parser with the script's docstring as its help, and an option for each whole number."""
    arguments = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in defaults.items():
        arguments.add_argument(f"--{name}", type=int, default=default, help=_HELP.get(name))
    return arguments


def artifact(format_: str) -> Artifact:
    """An artifact with no facts but its format."""
    audit = Audit(format_, 0, 0, 0, 0, 0, 0.0, 0.0, tied_head=False, vocab_size=0, context=0)
    return Artifact("", format_, "", (), audit)


def random_prompts(count: int, length: int, seed: int) -> list[list[int]]:
    source = random.Random(seed)  # noqa: S311  (reproducible, not secret)
    return [[source.randrange(5, 4000) for _ in range(length)] for _ in range(count)]


def llama_tool(tools: Path, name: str, *arguments: str, ending: str = "") -> str:
    """What a tool of llama.cpp prints; of one asked for `-o` json its stdout alone.

    llama-perplexity may end before its last lines are written: it runs again until `ending` is among them.
    """
    for _ in range(_TRIES):
        done = run([str(tools / name), *arguments])
        output = done.stdout if "-o" in arguments else done.stdout + done.stderr
        if ending in output:
            return output
    sys.exit(f"{name} printed no '{ending}' in {_TRIES} runs: {output[-500:]}")


def number(pattern: str, text: str) -> float:
    """The first group; the script ends where a tool's output has none."""
    match = re.search(pattern, text)
    if match is None:
        sys.exit(f"the tool's output does not match {pattern}: {text[-500:]}")
    return float(match[1])


def divergence_means(facts: Mapping[str, Any]) -> dict[str, float]:
    """KL in nats a token and the share of tokens with the same top-1, of what the divergence task's `evaluate` gave.

    The task's own `metrics` has intervals too, which need SciPy: an engine's environment does not have it.
    """
    tokens = sum(facts["window_tokens"])
    agreement = sum(facts["window_top1"]) / tokens
    return {"kl_mean": sum(facts["window_kl"]) / tokens, "top1_agreement_fraction": agreement}


def vllm_benchmark(name: str) -> str:
    """Code for `python -c` that is `vllm bench NAME`."""
    return _VLLM_BENCHMARK.format(name)


def command_line(options: Mapping[str, object]) -> list[str]:
    return [str(part) for option in options.items() for part in option]


def run(
    argv: Sequence[str], *, folder: Path = ROOT, env: Mapping[str, str] | None = None, timeout_s: float | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end; the script ends with its last lines where it fails."""
    done = subprocess.run(
        argv, cwd=folder, env=env, timeout=timeout_s, capture_output=True, text=True, errors="replace", check=False
    )
    if done.returncode:
        sys.exit(f"{' '.join(argv)[:100]} failed: {(done.stderr or done.stdout)[-1500:]}")
    return done


def compare(title: str, tokens: int, rounds: int, ours: Callable[[int], float], theirs: Callable[[int], float]) -> None:
    """Print tokens/s of both, and their ratio, for each round; then the medians, and all of it as JSON.

    Both return the seconds of a round by its number. Odd rounds begin with theirs; `load` is the machine's
    load average before and after a round.
    """
    results: list[dict[str, Any]] = []
    for number in range(rounds):
        before = os.getloadavg()[0]
        order = [("ours", ours), ("theirs", theirs)]
        rates = {name: tokens / measure(number) for name, measure in (order if number % 2 == 0 else order[::-1])}
        rates["ratio"] = rates["ours"] / rates["theirs"]
        results.append({**rates, "load": [before, os.getloadavg()[0]]})
        print(f"round {number}: {_rates(rates)}, load {before:.1f} before", flush=True)
    medians = {key: statistics.median(r[key] for r in results) for key in ("ours", "theirs", "ratio")}
    print(f"{title}: {_rates(medians)} ({rounds} rounds)")
    print(json.dumps({**medians, "rounds": results}))


def _rates(rates: Mapping[str, float]) -> str:
    return f"ours {rates['ours']:.1f} tok/s, theirs {rates['theirs']:.1f}, ratio {rates['ratio']:.3f}"
