"""The vllm engine against `vllm bench throughput`, on the same model, shapes, threads and settings.

Run from the repository's root by the vllm environment's interpreter (`python -m bench envs list` shows it):

    python -m benchmarks.vllm_parity --model models/demo

A round is one fresh process of each, ours and theirs by turns (ABBA): load, one batch to warm up, then one batch of
random prompts from its first request to its last token. Theirs runs its engine in a process of its own unless
--together puts it into the caller's, as ours is; it samples at temperature 1, tokenizes its prompts and yields each
request at its end. Ours is greedy and yields every token at its step. The medians of output tokens/s and of the rounds'
ratios; the last line of the output is the result as JSON, with the load of the machine before and after each round.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from bench.engines import vllm
from bench.engines.vllm.options import command_line, variables
from benchmarks import script


def main() -> None:
    parser = script.parser(__doc__, threads=2, rounds=6, batch=8, prompt=128, new=256)
    parser.add_argument("--model", type=Path, default=script.DEMO)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--together", action="store_true", help="their engine in their own process")
    parser.add_argument("--ours", action="store_true", help="one batch in this process: what a round starts")
    given = parser.parse_args()
    options = vllm.Options(threads=given.threads, dtype="float32" if given.device == "cpu" else "auto")
    if given.ours:
        print(json.dumps({"elapsed_s": _batch(given, options)}))
        return
    script.compare(
        f"batch {given.batch}, {given.prompt} + {given.new} tokens, {given.threads} threads",
        given.batch * given.new,
        given.rounds,
        lambda _: _ours(given),
        lambda _: _theirs(given, options),
    )


def _batch(given: argparse.Namespace, options: vllm.Options) -> float:
    """Seconds from the first request to the last token of one batch, the second of this process."""
    prompts = script.random_prompts(2 * given.batch, given.prompt, 0)
    with vllm.open(given.model, script.artifact("hf"), options, given.device) as session:
        list(session.generate(prompts[given.batch :], given.new))
        began = time.perf_counter()
        times = [step.time_s for step in session.generate(prompts[: given.batch], given.new)]
    assert len(times) == given.new  # noqa: S101
    return times[-1] - began


def _ours(given: argparse.Namespace) -> float:
    numbers = {f"--{name}": vars(given)[name] for name in ("batch", "prompt", "new", "model", "device", "threads")}
    argv = [sys.executable, "-m", "benchmarks.vllm_parity", "--ours", *script.command_line(numbers)]
    return float(json.loads(_run(argv, given).splitlines()[-1])["elapsed_s"])


def _theirs(given: argparse.Namespace, options: vllm.Options) -> float:
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "out.json"
        shape = {
            "--dataset-name": "random",
            "--num-prompts": given.batch,
            "--num-warmups": given.batch,
            "--random-input-len": given.prompt,
            "--random-output-len": given.new,
            "--output-json": out,
        }
        engine = command_line(given.model, options, given.device)
        argv = [sys.executable, "-c", script.vllm_benchmark("throughput"), *engine, *script.command_line(shape)]
        _run([*argv, "--disable-detokenize"], given)
        return float(json.loads(out.read_text())["elapsed_time"])


def _run(argv: list[str], given: argparse.Namespace) -> str:
    engine = variables(vllm.Options(threads=given.threads), given.device)
    together = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"} if given.together else {}
    env = {**os.environ, **engine, **together, "VLLM_LOGGING_STREAM": "ext://sys.stderr"}
    return script.run(argv, env=env).stdout


if __name__ == "__main__":
    main()
