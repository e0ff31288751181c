"""The onnxruntime engine against the loop of ONNX Runtime GenAI's own benchmark_e2e, on one model.

Run from the repository's root by the onnx environment's interpreter (`python -m bench envs list` shows it),
with a folder that the method onnx made:

    python -m quantize models/demo --recipe onnx-int4 -o FOLDER
    ONNX_PYTHON -m benchmarks.onnxruntime_parity FOLDER

Both models are loaded in this process with the same threads, and take turns (ABBA): a batch of random
prompts, from its first token fed to its last token made. Theirs, as benchmark_e2e.py has it, forbids the end
token with min_length and fetches no token from the generator; ours removes the end and yields each step's
tokens with their time. The last line of the output is the result as JSON, with the machine's load before each
round.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import time
from pathlib import Path
from typing import Any

from bench.contract.record import Artifact, Audit
from bench.engines import onnxruntime

_AUDIT = Audit("onnx", 0, 0, 0, 0, 0, 0.0, 0.0, tied_head=False, vocab_size=0, context=0)
_ARTIFACT = Artifact("", "onnx", "", (), _AUDIT)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--prompt", type=int, default=128, help="tokens of a prompt")
    parser.add_argument("--new", type=int, default=256, help="tokens made from each")
    given = parser.parse_args()
    theirs = _their_model(given)
    options = onnxruntime.Options(threads=given.threads)
    with onnxruntime.open(given.folder, _ARTIFACT, options, given.device) as session:
        for warm in range(2):
            _ours(session, given, warm)
            _theirs(theirs, given, warm)
        rounds = [_round(number, session, theirs, given) for number in range(given.rounds)]
    medians = {key: statistics.median(r[key] for r in rounds) for key in ("ours", "theirs", "ratio")}
    print(
        f"batch {given.batch}, {given.prompt} + {given.new} tokens, {given.threads} threads: ours "
        f"{medians['ours']:.1f} tok/s, their loop {medians['theirs']:.1f}, ratio {medians['ratio']:.3f} "
        f"({len(rounds)} rounds)"
    )
    print(json.dumps({**medians, "rounds": rounds}))


def _round(number: int, session: Any, theirs: Any, given: argparse.Namespace) -> dict[str, Any]:
    """Output tokens/s of both on the same prompts; odd rounds begin with theirs."""
    load = os.getloadavg()[0]
    if number % 2 == 0:
        ours, other = _ours(session, given, number), _theirs(theirs, given, number)
    else:
        other, ours = _theirs(theirs, given, number), _ours(session, given, number)
    made = given.batch * given.new
    return {"ours": made / ours, "theirs": made / other, "ratio": other / ours, "load": load}


def _prompts(given: argparse.Namespace, seed: int) -> list[list[int]]:
    source = random.Random(seed)  # noqa: S311  (reproducible, not secret)
    return [[source.randrange(5, 4000) for _ in range(given.prompt)] for _ in range(given.batch)]


def _ours(session: Any, given: argparse.Namespace, seed: int) -> float:
    prompts = _prompts(given, seed)
    began = time.perf_counter()
    times = [step.time_s for step in session.generate(prompts, given.new)]
    assert len(times) == given.new  # noqa: S101
    return float(times[-1] - began)


def _their_model(given: argparse.Namespace) -> Any:
    """As benchmark_e2e loads it, with the threads set."""
    import onnxruntime_genai as og

    config = og.Config(str(given.folder))
    session = {"intra_op_num_threads": given.threads}
    config.overlay(json.dumps({"model": {"decoder": {"session_options": session}}}))
    return og.Model(config)


def _theirs(model: Any, given: argparse.Namespace, seed: int) -> float:
    import numpy as np
    import onnxruntime_genai as og

    prompts = _prompts(given, seed)
    began = time.perf_counter()
    length = given.prompt + given.new
    params = og.GeneratorParams(model)
    params.set_search_options(do_sample=False, max_length=length, min_length=length, batch_size=given.batch)
    generator = og.Generator(model, params)
    generator.append_tokens(np.asarray(prompts, np.int32))
    made = 0
    while not generator.is_done() and made < given.new:
        generator.generate_next_token()
        made += 1
    assert made == given.new  # noqa: S101
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
