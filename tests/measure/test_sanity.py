import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from bench.contract.record import Artifact, Audit, Hardware, RequestTrace, Result
from bench.contract.spec import Cell, EngineSpec, Model, Recipe, Step, Task
from bench.contract.workload import Offline
from bench.measure.latency import latency_metrics
from bench.measure.sanity import MARKS, check, marks

HARDWARE = Hardware("cpu", "cpu-x", "x", 2**34, "x", 2, 2**34, (), "float32", "Linux")
GOOD = RequestTrace(0, 0, 4, 0.0, 0.0, (0.5, 0.6, 0.7), (1, 1, 1))


def result(metrics: Mapping[str, float] | None = None, facts: Mapping[str, Any] | None = None) -> Result:
    workload = Offline(prompt_tokens=4, new_tokens=3)
    cell = Cell(Model("m"), Recipe("r"), EngineSpec("fake"), "cpu", workload)
    return Result("d", "s", cell, 0, "ok", HARDWARE, metrics=metrics or {}, facts=facts or {})


def artifact(bits: float, kind: str = "gptq", *steps: Step) -> Artifact:
    audit = Audit(kind, 1000, 900, 100, 90, 800, bits, 1.0, tied_head=False, vocab_size=8, context=16)
    return Artifact("a", kind, "m", steps or (Step("gptq", {"bits": 4}),), audit)


def test_a_sound_record_is_silent() -> None:
    """Metrics from these very traces, memory above the weights: nothing to say."""
    sound = result({**latency_metrics([GOOD]), "peak_memory_bytes": 2000.0}, {"weights_bytes": 900})
    assert check(replace(sound, artifact=artifact(4.25)), [GOOD], 16.0) == []


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        (replace(GOOD, token_s=(0.5, 0.6), event_tokens=(1, 1)), "produced 2 tokens, expected 3"),
        (replace(GOOD, prompt_tokens=5), "prompt of 5 tokens, expected 4"),
        (replace(GOOD, token_s=(0.5, 0.7, 0.6)), "back in time"),
        (replace(GOOD, due_s=-1.0), "negative time"),
        (replace(GOOD, due_s=0.4, sent_s=0.3), "before it was due"),
        (replace(GOOD, token_s=(0.0, 0.6, 0.7)), "no later than it was sent"),
    ],
)
def test_impossible_traces_are_named(wrong: RequestTrace, problem: str) -> None:
    """Each contradiction in a request's stamps gets its sentence."""
    assert any(problem in sentence for sentence in check(result(), [wrong], None))


def test_a_failed_requests_stamps_are_not_judged() -> None:
    """A request that says it failed may have stopped anywhere."""
    assert check(result(), [replace(GOOD, token_s=(0.5,), event_tokens=(1,), error="reset")], None) == []


@pytest.mark.parametrize(
    ("metrics", "problem"),
    [
        ({"perplexity": 0.9}, "cannot be below 1"),
        ({"kl_mean": -2e-6}, "kl_mean is -2e-06, and a KL divergence cannot be negative"),
        ({"top1_agreement_fraction": 1.01}, "top1_agreement_fraction is 1.01, and must be within 0 .. 1"),
        ({"top1_agreement_fraction": -0.01}, "must be within 0 .. 1"),
        ({"perplexity": math.inf}, "not a finite number"),
        ({"perplexity": math.nan}, "not a finite number"),
        ({"ttft_s": 0.0}, "must be positive"),
        ({"ttft_s": 2.0, "e2el_s": 1.0}, "longer than the median E2EL"),
        ({"peak_memory_bytes": 10.0}, "less than the 900 bytes of weights"),
    ],
)
def test_impossible_metrics_are_named(metrics: dict[str, float], problem: str) -> None:
    """Values no machine and no text can give are sentences."""
    assert any(problem in s for s in check(result(metrics, {"weights_bytes": 900}), [], None))


def test_metrics_that_are_not_their_traces() -> None:
    """A recorded TTFT that its own traces do not give is an error of definition or of bookkeeping."""
    assert check(result({"ttft_s": 0.4}), [GOOD], None) == ["ttft_s is recorded as 0.4, its traces give 0.5"]


@pytest.mark.parametrize(
    ("built", "caught"),
    [
        (artifact(16.0), True),
        (artifact(15.9), True),
        (artifact(8.5), False),
        (artifact(16.0, "gguf", Step("gguf", {"type": "F16"})), False),
        (artifact(16.0, "bnb", Step("bnb", {"compute_dtype": "bfloat16"})), True),
    ],
)
def test_quantized_by_name_only(built: Artifact, caught: bool) -> None:  # noqa: FBT001 a table of facts
    """The baseline's bits per weight under a quantizer's name is caught; pruning and F16 controls are not."""
    sentences = check(replace(result(), artifact=built), [], 16.0)
    assert any("by name only" in s for s in sentences) is caught
    assert not check(replace(result(), artifact=built), [], None)


def test_a_failure_owes_its_reason() -> None:
    """Failed without a reason is a fault of ours; with one there is nothing to check."""
    assert check(replace(result(), status="failed"), [], None)
    assert not check(replace(result({"ttft_s": -1.0}), status="failed", reason="out of memory"), [], None)


def test_rounds_that_disagree_are_marked_by_metric() -> None:
    """Six percent between rounds on TPOT marks TPOT, and only it."""
    rounds = [result({"ttft_s": 1.0, "tpot_s": v}) for v in (1.0, 1.0, 1.12)]
    assert marks(rounds) == ("varies:tpot_s",)
    assert marks(rounds[:2]) == ()


def test_marks_of_a_troubled_cell() -> None:
    """Throttling, failed requests, a busy device and a failed round each leave a code that has a legend."""
    hot = result({"failed_requests": 1.0}, {"throttle_reasons": ["hw_thermal"]})
    codes = marks([replace(hot, marks=("busy",)), replace(result(), status="failed", reason="killed")])
    assert codes == ("busy", "errors", "round", "throttled")
    assert set(codes) <= set(MARKS)


def test_nvmls_figure_in_the_memory_column_is_marked() -> None:
    """Two definitions never share a column unsaid."""
    gpu = result({"peak_memory_bytes": 5.0})
    on_gpu = replace(gpu, cell=replace(gpu.cell, device="cuda:0"))
    assert marks([on_gpu]) == ("nvml",)
    assert marks([replace(on_gpu, facts={"peak_device_bytes": 5})]) == ()
    assert marks([gpu]) == ()


def test_a_score_does_not_care_for_the_clock() -> None:
    """Busy, or with memory that varies, a perplexity is what it is; one that varies is marked."""
    task = replace(result().cell, workload=None, task=Task("perplexity"))
    sizes = [result({"perplexity": 9.0, "peak_memory_bytes": m}) for m in (1.0, 2.0)]
    rounds = [replace(one, cell=task, marks=("busy",)) for one in sizes]
    assert marks(rounds) == ()
    assert marks([*rounds, replace(rounds[0], metrics={"perplexity": 12.0})]) == ("varies:perplexity",)


def test_a_divergence_of_nothing_is_possible() -> None:
    """Zero, and rounding below it, is what a model has against itself."""
    assert check(result({"kl_mean": -1e-9, "kl_median": 0.0, "top1_agreement_fraction": 1.0}), [], None) == []


def test_events_are_marked_and_no_exact_length_is_asked_of_them() -> None:
    """What a server does not count, a tokenizer or its events do: neither is a promise of length."""
    short = replace(GOOD, token_s=(0.5, 0.7), event_tokens=(1, 1))
    by_events, by_tokenizer = ({"counted_by": by} for by in ("events", "tokenizer"))

    assert "events" in marks([result({}, by_events)])
    assert "events" in marks([result({}, {"stages": [{"metrics": {}, "counted_by": "events"}]})])
    assert "events" not in marks([result({}, by_tokenizer)])
    assert check(result({}, by_events), [short], None) == []
    assert check(result({}, {"counted_by": "usage"}), [short], None) != []


@pytest.mark.parametrize(("share", "expected"), [(1.0, ("idempotent",)), (0.6, ("idempotent",)), (0.4, ())])
def test_what_is_stored_as_its_source_was_is_marked(share: float, expected: tuple[str, ...]) -> None:
    """By the share of layers in the source's own type: such a recipe loses nothing, and proves nothing."""
    built = replace(artifact(5.0), facts={"source_grid_fraction": share})
    assert marks([replace(result(), artifact=built)]) == expected
