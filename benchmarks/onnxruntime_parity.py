"""The onnxruntime engine against the loop of ONNX Runtime GenAI's own benchmark_e2e, on one model.

Run from the repository's root by the onnx environment's interpreter (`python -m bench envs list` shows it),
with an artifact of the method onnx:

    python -m quantize models/demo --recipe onnx-int4 -o FOLDER
    ONNX_PYTHON -m benchmarks.onnxruntime_parity FOLDER

Both models are loaded in this process with the same threads, and take turns (ABBA): a batch of random
prompts, from its first token fed to its last token generated. Theirs, as benchmark_e2e.py has it, forbids the
end token with min_length and fetches no token from the generator; ours removes the end and yields each step's
tokens with their time. The last line of the output is the result as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from functools import partial
from pathlib import Path
from typing import Any

from bench.engines import onnxruntime
from benchmarks import script


def main() -> None:
    parser = script.parser(__doc__, threads=os.cpu_count() or 1, rounds=10, batch=1, prompt=128, new=256)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    theirs = partial(_theirs, _their_model(given), given)
    options = onnxruntime.Options(threads=given.threads)
    with onnxruntime.open(given.folder, script.artifact("onnx"), options, given.device) as session:
        ours = partial(_ours, session, given)
        for warm in range(2):
            ours(warm)
            theirs(warm)
        title = f"batch {given.batch}, {given.prompt} + {given.new} tokens, {given.threads} threads"
        script.compare(title, given.batch * given.new, given.rounds, ours, theirs)


def _ours(session: Any, given: argparse.Namespace, seed: int) -> float:
    prompts = script.random_prompts(given.batch, given.prompt, seed)
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

    prompts = script.random_prompts(given.batch, given.prompt, seed)
    began = time.perf_counter()
    length = given.prompt + given.new
    params = og.GeneratorParams(model)
    params.set_search_options(do_sample=False, max_length=length, min_length=length, batch_size=given.batch)
    generator = og.Generator(model, params)
    generator.append_tokens(np.asarray(prompts, np.int32))
    steps = 0
    while not generator.is_done() and steps < given.new:
        generator.generate_next_token()
        steps += 1
    assert steps == given.new  # noqa: S101
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
