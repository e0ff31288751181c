"""The vllm engine against `vllm bench throughput`, on the same model, shapes, threads and settings.

Run from the repository's root by the vllm environment's interpreter (`python -m bench envs list` shows it):

    python -m benchmarks.vllm_parity --model models/demo

A round is one fresh process of each, ours and theirs by turns (ABBA): load, one batch to warm up, then one
batch of random prompts from its first request to its last token. Theirs runs its engine in a process of its
own unless --together puts it beside the caller, as ours is; it samples at temperature 1, tokenizes its
prompts and yields each request at its end. Ours is greedy and yields every token at its step. The medians of
output tokens/s and of the rounds' ratios; the last line of the output is the result as JSON, with the load
of the machine before and after each round.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.contract.record import Artifact, Audit
from bench.engines import vllm
from bench.engines.vllm.options import command_line, variables

_ROOT = Path(__file__).resolve().parents[1]
_AUDIT = Audit("hf", 0, 0, 0, 0, 0, 0.0, 0.0, tied_head=False, vocab_size=0, context=0)
_ARTIFACT = Artifact("", "hf", "", (), _AUDIT)
# `vllm bench throughput` without its entry point, which needs a package that is called vllm.
_THEIRS = """
from vllm.benchmarks import throughput
from vllm.utils.argparse_utils import FlexibleArgumentParser
parser = FlexibleArgumentParser()
throughput.add_cli_args(parser)
throughput.main(parser.parse_args())
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=_ROOT / "models" / "demo")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--prompt", type=int, default=128, help="tokens of a prompt")
    parser.add_argument("--new", type=int, default=256, help="tokens made from each")
    parser.add_argument("--together", action="store_true", help="their engine in their own process")
    parser.add_argument("--ours", action="store_true", help="one batch in this process: what a round starts")
    given = parser.parse_args()
    if given.ours:
        print(json.dumps({"elapsed_s": _batch(given)}))
        return
    rounds = [_round(number, given) for number in range(given.rounds)]
    medians = {key: statistics.median(r[key] for r in rounds) for key in ("ours", "theirs", "ratio")}
    print(
        f"batch {given.batch}, {given.prompt} + {given.new} tokens, {given.threads} threads: ours "
        f"{medians['ours']:.1f} tok/s, vllm bench throughput {medians['theirs']:.1f}, ratio "
        f"{medians['ratio']:.3f} ({len(rounds)} rounds)"
    )
    print(json.dumps({**medians, "rounds": rounds}))


def _round(number: int, given: argparse.Namespace) -> dict[str, Any]:
    """Output tokens/s of both, each in a process of its own; odd rounds begin with theirs."""
    before = os.getloadavg()[0]
    order = [("ours", _ours), ("theirs", _theirs)]
    seconds = {name: measure(given) for name, measure in (order if number % 2 == 0 else order[::-1])}
    speeds = {name: given.batch * given.new / spent for name, spent in seconds.items()}
    found = {**speeds, "ratio": speeds["ours"] / speeds["theirs"], "load": [before, os.getloadavg()[0]]}
    print(
        f"round {number}: ours {found['ours']:.1f} tok/s, theirs {found['theirs']:.1f}, ratio "
        f"{found['ratio']:.3f}, load {before:.1f} before"
    )
    return found


def _batch(given: argparse.Namespace) -> float:
    """Seconds from the first request to the last token of one batch, the second of this process."""
    source = random.Random(0)  # noqa: S311  (reproducible, not secret)
    prompts = [[source.randrange(5, 4000) for _ in range(given.prompt)] for _ in range(2 * given.batch)]
    options = vllm.Options(threads=given.threads, dtype="float32" if given.device == "cpu" else "auto")
    with vllm.open(given.model, _ARTIFACT, options, given.device) as session:
        list(session.generate(prompts[given.batch :], given.new))
        began = time.perf_counter()
        times = [step.time_s for step in session.generate(prompts[: given.batch], given.new)]
    assert len(times) == given.new  # noqa: S101
    return times[-1] - began


def _ours(given: argparse.Namespace) -> float:
    shape = ["--batch", str(given.batch), "--prompt", str(given.prompt), "--new", str(given.new)]
    where = ["--model", str(given.model), "--device", given.device, "--threads", str(given.threads)]
    output = _run([sys.executable, "-m", "benchmarks.vllm_parity", "--ours", *shape, *where], given)
    return float(json.loads(output.splitlines()[-1])["elapsed_s"])


def _theirs(given: argparse.Namespace) -> float:
    options = vllm.Options(threads=given.threads, dtype="float32" if given.device == "cpu" else "auto")
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "out.json"
        _run(
            [
                sys.executable,
                "-c",
                _THEIRS,
                *command_line(given.model, options, given.device),
                "--dataset-name",
                "random",
                "--num-prompts",
                str(given.batch),
                "--num-warmups",
                str(given.batch),
                "--random-input-len",
                str(given.prompt),
                "--random-output-len",
                str(given.new),
                "--disable-detokenize",
                "--output-json",
                str(out),
            ],
            given,
        )
        return float(json.loads(out.read_text())["elapsed_time"])


def _run(argv: list[str], given: argparse.Namespace) -> str:
    options = vllm.Options(threads=given.threads)
    apart = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"} if given.together else {}
    logging = {"VLLM_LOGGING_STREAM": "ext://sys.stderr"}
    environ = {**os.environ, **variables(options, given.device), **apart, **logging}
    done = subprocess.run(argv, cwd=_ROOT, env=environ, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{argv[2][:60]} failed: {(done.stderr or done.stdout)[-1500:]}")
    return done.stdout


if __name__ == "__main__":
    main()
