"""What a record of the conformance suite comes to."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.conformance import verdict
from bench.contract.record import Hardware, Result, Source
from bench.contract.spec import Cell, EngineSpec, Model
from bench.models.resolve import Resolved
from bench.run import plan
from bench.suite import config
from tests.run import fake_runs

_HARDWARE = Hardware("cpu", "cpu", "CPU", 1 << 30, "A CPU", 2, 1 << 30, ("avx2",), "float32", "Linux")


def _record(
    recipe: str, status: str = "ok", kl: float = 0.0, gaps: tuple[float, ...] = (0.0,), dtype: str = "float32"
) -> Result:
    cell = Cell(Model("m"), config.recipe_named(recipe), EngineSpec("hf"), "cpu")
    metrics = {"conformance_kl": kl, "greedy_gap_nats": max(gaps)} if status == "ok" else {}
    facts, receipts = {"greedy_gaps": list(gaps)}, {"compute_dtype": dtype}
    record = Result("d", "s", cell, 0, status, _HARDWARE, "why", receipts=receipts, metrics=metrics)  # type: ignore[arg-type]
    return replace(record, facts=facts)


def _status(record: Result | None, reason: str = "", model_type: str = "") -> tuple[str, str]:
    planned = plan.plan(fake_runs.suite(tasks=["conformance"]), fetch=False).items[0]
    if model_type:
        resolved = Resolved(None, "", "hf", planned=Source("hf", {}, {"model_type": model_type}))
        planned = replace(planned, artifact=replace(planned.artifact, resolved=resolved))
    judged = verdict.of("llama", replace(planned, reason=reason), record)
    return judged.status, judged.reason


@pytest.mark.parametrize(
    ("recipe", "kl", "works"),
    [
        ("baseline", 0.001, True),
        ("baseline", 0.02, False),
        ("gguf-f16", 0.02, False),
        ("torchao-int8wo", 0.02, True),
        ("torchao-int8wo", 0.2, False),
        ("nf4", 0.7, True),
        ("nf4", 3.0, False),
        ("wanda-50", 3.0, True),
    ],
)
def test_the_bits_say_how_far_logits_may_be(recipe: str, kl: float, works: bool) -> None:  # noqa: FBT001
    """Floats are exact to rounding, four bits are not; a pruned model is another one."""
    status, reason = _status(_record(recipe, kl=kl))

    assert status == ("works" if works else "fails")
    assert ("KL" in reason) is not works


def test_an_engine_in_16_bits_may_be_further_off() -> None:
    """As vLLM in bfloat16."""
    assert _status(_record("baseline", kl=0.02, dtype="bfloat16")) == ("works", "")


def test_generation_that_is_not_greedy_fails() -> None:
    """A cache that forgets what a whole pass knows."""
    status, reason = _status(_record("wanda-50", gaps=(0.0, 0.0, 0.0, 2.5)))

    assert status == "fails"
    assert "2.5 nats less likely" in reason


@pytest.mark.parametrize(
    ("recipe", "dtype", "kl", "gaps", "works"),
    [
        ("torchao-int8wo", "float32", 0.07, (0.0,), True),
        ("torchao-int8wo", "float32", 0.3, (0.0,), False),
        ("baseline", "bfloat16", 0.1, (0.0,), True),
        ("baseline", "float32", 0.02, (0.0,), False),  # nothing is rounded
        ("gguf-q4_k_m", "float32", 0.9, (0.0, 0.0, 0.0, 2.7), True),
        ("gguf-q4_k_m", "float32", 0.9, (0.0, 0.0, 1.6, 2.7), False),
    ],
)
def test_rounding_exchanges_experts(recipe: str, dtype: str, kl: float, gaps: tuple[float, ...], works: bool) -> None:  # noqa: FBT001
    """A few tokens of a model with experts are far off, and no more of one without."""
    record = _record(recipe, kl=kl, gaps=gaps, dtype=dtype)

    assert _status(record, model_type="mixtral")[0] == ("works" if works else "fails")
    assert _status(record, model_type="llama")[0] == "fails"


def test_other_records_keep_their_reason() -> None:
    """And a cell without a record has not been run."""
    assert _status(_record("nf4", "unsupported")) == ("unsupported", "why")
    assert _status(_record("nf4", "failed")) == ("fails", "why")
    assert _status(None) == ("not run", "")


def test_the_plans_reason_comes_before_an_older_record() -> None:
    """What failed before it was known to be unsupported."""
    assert _status(_record("nf4", "failed"), "no such kernel") == ("unsupported", "no such kernel")
