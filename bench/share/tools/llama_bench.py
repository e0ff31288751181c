"""What `llama-bench -o json` prints: a test of prompt processing (pp) or of generation (tg) each, in process.

By tools/llama-bench of llama.cpp: `samples_ns` are the times of the repetitions, after a warm-up, of `n_prompt` tokens
decoded in batches, or of `n_gen` tokens decoded one by one, at a context of `n_depth`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath
from statistics import median
from typing import Any

from bench.contract.workload import Offline
from bench.share.tools.measurement import Count, MalformedError, Measurement, Number, Text, load, public_name, validated

NAME = "llama-bench"
NOTES: tuple[str, ...] = (
    (
        "llama-bench: prompt processing and generation are tests of their own, of random tokens, without sampling; "
        "there is no TTFT, and generation starts from an empty context (or n_depth), not from a prompt"
    ),
    ("llama-bench: repetitions are in one process, and their median is one round; this suite's rounds are processes"),
)
_NS = 1e-9


@dataclass(frozen=True)
class _Test:
    model_filename: Text
    n_prompt: Count
    n_gen: Count
    samples_ns: tuple[Number, ...]
    n_depth: Count = 0
    model_type: Text = ""
    build_commit: Text = ""
    build_number: Count = 0
    cpu_info: Text = ""
    gpu_info: Text = ""
    backends: Text = ""
    test_time: Text = ""
    n_threads: Count = 0
    n_batch: Count = 0
    n_ubatch: Count = 0
    n_gpu_layers: int = 0
    type_k: Text = ""
    type_v: Text = ""


def matches(data: Any) -> bool:
    return (
        isinstance(data, list)
        and bool(data)
        and isinstance(data[0], dict)
        and {"n_gen", "build_commit"} <= data[0].keys()
    )


def read(data: Any) -> list[Measurement]:
    """A measurement for each test; MalformedError for one without samples."""
    return [_measurement(validated(_Test, test, str(number)), number) for number, test in enumerate(data)]


def _measurement(test: _Test, number: int) -> Measurement:
    if not test.samples_ns or not all(test.samples_ns) or not test.n_prompt + test.n_gen:
        raise MalformedError(f"{number}.samples_ns: expected times above zero of some tokens")
    total_s = sum(test.samples_ns) * _NS
    sizes: dict[str, Any] = {
        "prompt_tokens": max(1, test.n_prompt),
        "new_tokens": max(2, test.n_gen),
        "depth_tokens": test.n_depth,
    }
    return Measurement(
        PurePath(public_name(test.model_filename)).stem,
        load(Offline, name=_title(test), batch=1, repeats=len(test.samples_ns), **sizes),
        None,
        {"measured_s": total_s, **_rates(test, median(test.samples_ns) * _NS)},
        {
            name: getattr(test, name)
            for name in ("n_prompt", "n_gen", "n_threads", "n_batch", "n_ubatch", "n_gpu_layers", "type_k", "type_v")
        },
        engine="llamacpp",
        recipe=test.model_type,
        checkpoint=public_name(test.model_filename),
        environment={"llama.cpp": f"{test.build_commit} (build {test.build_number})", "backends": test.backends},
        started=test.test_time,
        duration_s=total_s,
        cpu=test.cpu_info,
        gpu=test.gpu_info,
    )


def _title(test: _Test) -> str:
    """As llama-bench names it: pp512, tg128, pp512+tg128, with its depth."""
    parts = (f"pp{test.n_prompt}" if test.n_prompt else "", f"tg{test.n_gen}" if test.n_gen else "")
    depth = f"@d{test.n_depth}" if test.n_depth else ""
    return f"{NAME}-{'+'.join(filter(None, parts))}{depth}"


def _rates(test: _Test, seconds: float) -> dict[str, float]:
    if test.n_prompt and test.n_gen:
        return {"output_tok_per_s": test.n_gen / seconds}
    if test.n_prompt:
        return {"prefill_tok_per_s": test.n_prompt / seconds}
    return {"decode_tok_per_s": test.n_gen / seconds, "tpot_s": seconds / test.n_gen}
