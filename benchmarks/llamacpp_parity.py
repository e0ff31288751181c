"""The llamacpp engine against llama.cpp's own tools, on the same file, text, context and threads.

Run from the repository's root by the llamacpp environment's interpreter, once
`python -m bench envs build llamacpp --tools` has printed where the tools are:

    python -m benchmarks.llamacpp_parity --tools DIR

Quality: perplexity of f16, q8_0 and q4_k_m of the demo model against llama-perplexity, and their divergence
from f16 against its --kl-divergence. Speed: prefill and decode against llama-bench, round by round, ours and
theirs by turns (ABBA), on a Llama of random weights with about 100M parameters and on the demo model; the
medians of the rounds' ratios. Decoding is compared at the same depth: each step follows a prompt. `--model` and
`--text` have both on another model, a folder or a .gguf file, and on another text. The last line of the output is the
result as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr
from functools import partial
from pathlib import Path
from typing import Any

from bench.engines import llamacpp
from benchmarks import script
from eval import corpora
from eval.tasks import divergence, perplexity
from quantize.methods import gguf

_CHARACTERS = 60_000  # that are scored
_TYPES = ("f16", "q8_0", "q4_k_m")
_SHAPE = {
    "hidden_size": 768,
    "intermediate_size": 2048,
    "num_hidden_layers": 14,
    "num_attention_heads": 12,
    "num_key_value_heads": 12,
    "vocab_size": 4096,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": True,
}


def main() -> None:
    parser = script.parser(__doc__, threads=2, rounds=15, new=128)
    parser.add_argument("--tools", type=Path, required=True, help="folder of llama-bench and llama-perplexity")
    parser.add_argument("--prompt", type=int, default=256, help="tokens of a prompt, and depth of decoding")
    parser.add_argument("--only", choices=["quality", "speed"])
    parser.add_argument("--model", type=Path, help="in place of the demo model and of random weights")
    parser.add_argument("--text", type=Path, help="scored in place of the standard library's modules, up to a limit")
    given = parser.parse_args()
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        files = _files(given.model or script.DEMO, Path(scratch) / "files", _TYPES)
        if given.only != "speed":
            results["quality"] = quality(files, Path(scratch), given)
        if given.only != "quality" and given.model:
            results["speed"] = {kind: speed(kind, file, given) for kind, file in files.items()}
        elif given.only != "quality":
            big = _files(_random(Path(scratch)), Path(scratch) / "random", ("q8_0", "q4_k_m"))
            models = {f"random {k}": f for k, f in big.items() if k != "f16"}
            models |= {f"demo {k}": files[k] for k in ("f16", "q4_k_m")}
            results["speed"] = {name: speed(name, file, given) for name, file in models.items()}
    print(json.dumps(results))


def quality(files: dict[str, Path], scratch: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Per type: perplexity of both, the ratio; mean KL and same top-1 from f16 of both, with their errors."""
    file = scratch / "text.txt"
    text = given.text.read_text(encoding="utf-8") if given.text else corpora.load("stdlib").text
    file.write_text(text[:_CHARACTERS].rstrip() + ".", encoding="utf-8")
    theirs = dict(_llama_perplexity(files, file, scratch, given))
    task = divergence.Options(corpus=f"path:{file}", context=512, convention="llama.cpp")
    reference, results = scratch / "reference", {}
    reference.mkdir()
    for kind, model in files.items():
        with _open(model, given.threads) as session:
            folder = model.parent
            options = perplexity.Options(corpus=f"path:{file}", context=512, convention="llama.cpp")
            ours = dict(perplexity.metrics(perplexity.evaluate(session, options, folder, None)))
            if kind == "f16":
                facts = divergence.prepare(session, task, folder, reference)
                facts = {**facts, "digest": "", "engine": "llamacpp", "artifact": kind}
                (reference / "reference.json").write_text(json.dumps(facts))
            facts = divergence.evaluate(session, task, folder, reference)
        ours = {"perplexity": ours["perplexity"], **script.divergence_means(facts), "kl_floor": facts["kl_floor_mean"]}
        other, ratio = theirs[kind], ours["perplexity"] / theirs[kind]["perplexity"]
        results[kind] = {"ours": ours, "theirs": other, "perplexity_ratio": ratio}
        print(
            f"{kind:<8} perplexity {ours['perplexity']:.4f}, llama-perplexity {other['perplexity']:.4f}, "
            f"ratio {ratio:.5f}; KL {ours['kl_mean']:.6f}, theirs {other['kl']:.6f} ± {other['kl_error']:.6f}; "
            f"same top {100 * ours['top1_agreement_fraction']:.3f} %, "
            f"theirs {other['top']:.3f} ± {other['top_error']:.3f} %"
        )
    return results


def _llama_perplexity(
    files: dict[str, Path], text: Path, scratch: Path, given: argparse.Namespace
) -> Iterator[tuple[str, dict[str, float]]]:
    base = scratch / "base.kld"
    for kind, model in files.items():
        common = ["-m", str(model), "-f", str(text), "-c", "512", "-t", str(given.threads), "--no-escape"]
        run = partial(script.llama_tool, given.tools, "llama-perplexity", *common)
        values = {"perplexity": script.number(r"Final estimate: PPL = ([\d.]+)", run(ending="Final estimate: PPL"))}
        if kind == "f16":
            run("--kl-divergence-base", str(base))
        output = run("--kl-divergence-base", str(base), "--kl-divergence", ending="Same top p:")
        values["kl"] = script.number(r"Mean\s+KLD:\s+(-?[\d.]+)", output)
        values["kl_error"] = script.number(r"Mean\s+KLD:\s+-?[\d.]+ ±\s+([\d.]+)", output)
        values["top"] = script.number(r"Same top p:\s+([\d.]+)", output)
        values["top_error"] = script.number(r"Same top p:\s+[\d.]+ ±\s+([\d.]+)", output)
        yield kind, values


def speed(name: str, model: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Medians over rounds of ours / theirs, and the extra microseconds of a decode step."""
    rounds: list[dict[str, float]] = []
    for _ in range(given.rounds):
        first = _ours(model, given)
        theirs = [_llama_bench(model, given), _llama_bench(model, given)]
        ours = [first, _ours(model, given)]
        prefill, decode = ([statistics.fmean(pair[i] for pair in both) for both in (ours, theirs)] for i in (0, 1))
        figures = {"prefill_ratio": prefill[1] / prefill[0], "decode_ratio": decode[1] / decode[0]}
        rounds.append({**figures, "decode_us": 1e6 * decode[0], "step_overhead_us": 1e6 * (decode[0] - decode[1])})
    medians = {key: statistics.median(r[key] for r in rounds) for key in rounds[0]}
    print(
        f"{name:<14} prefill {medians['prefill_ratio']:.3f} of llama-bench, decode "
        f"{medians['decode_ratio']:.3f}, {medians['decode_us']:.0f} us a step, overhead "
        f"{medians['step_overhead_us']:+.0f} us ({len(rounds)} rounds)"
    )
    return {**medians, "rounds": rounds}


def _ours(model: Path, given: argparse.Namespace) -> tuple[float, float]:
    """(seconds of prefill, seconds of one decode step) of a prompt, after one to warm up.

    The model is loaded anew each time, as by llama-bench: where its weights lie moves a step by several percent.
    """
    with _open(model, given.threads) as session:
        for seed in (2, 3):
            prompt = [(31 * i + seed * 997) % 4000 + 5 for i in range(given.prompt)]
            began = time.perf_counter()
            times = [step.time_s for step in session.generate([prompt], given.new + 1)]
    return times[0] - began, (times[-1] - times[0]) / given.new


def _llama_bench(model: Path, given: argparse.Namespace) -> tuple[float, float]:
    common = ["-m", str(model), "-t", str(given.threads), "-r", "1", "-o", "json"]
    prompt, new = str(given.prompt), str(given.new)
    prefill = json.loads(script.llama_tool(given.tools, "llama-bench", *common, "-p", prompt, "-n", "0"))[0]
    decode = json.loads(script.llama_tool(given.tools, "llama-bench", *common, "-p", "0", "-n", new, "-d", prompt))[0]
    return given.prompt / prefill["avg_ts"], 1 / decode["avg_ts"]


def _open(model: Path, threads: int) -> Any:
    return llamacpp.open(model, script.artifact("gguf"), llamacpp.Options(threads=threads), "cpu")


def _files(model: Path, out: Path, types: Sequence[str]) -> dict[str, Path]:
    """A GGUF file of each type, f16 first, each in a folder of its own with the tokenizer."""
    files: dict[str, Path] = {}
    with open(os.devnull, "w") as nowhere, redirect_stderr(nowhere):  # noqa: PTH123  (the library's progress)
        for kind in dict.fromkeys(("f16", *types)):
            folder = out / kind
            folder.mkdir(parents=True)
            source = model if kind == "f16" else files["f16"].parent
            gguf.apply(source, gguf.Options(type=kind), folder, "cpu")  # type: ignore[arg-type]  # one of them
            files[kind] = folder / "model.gguf"
    return files


def _random(scratch: Path) -> Path:
    """A Llama of seeded random weights, right for speed and for nothing else, with the demo's tokenizer."""
    import shutil

    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    folder = scratch / "random-hf"
    model = LlamaForCausalLM(LlamaConfig(**_SHAPE)).half()
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer.model", "tokenizer_config.json"):
        shutil.copyfile(script.DEMO / name, folder / name)
    print(f"random Llama of {sum(p.numel() for p in model.parameters()):,} parameters")
    return folder


if __name__ == "__main__":
    main()
