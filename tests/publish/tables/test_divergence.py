"""How divergences are shown: beside perplexity, with their noise floor below."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

from bench.contract.record import Result
from bench.contract.spec import Task
from bench.measure.stats import spread
from bench.publish.tables.build import build
from bench.publish.tables.columns import format_interval, metric_columns, number, task_name
from bench.publish.tables.render import render
from tests.publish.tables.test_build import CPU, PPL, artifact_of, cell, scored

TASK = Task("divergence", name="divergence-stdlib-llama.cpp-512-16384t")
NLL = [1000.0, 990.0]


def diverged(recipe: str, kl: float, top1: float, engine: str = "hf") -> Result:
    metrics = {
        "kl_mean": kl,
        "kl_mean_low": 0.9 * kl,
        "kl_mean_high": 1.1 * kl,
        "kl_p99": 9 * kl,
        "kl_floor": 1.6e-9,
        "top1_agreement_fraction": top1,
        "top1_agreement_low_fraction": top1 - 0.004,
        "top1_agreement_high_fraction": top1 + 0.004,
        "bits_per_byte_change": 0.01,
    }
    plain = artifact_of(recipe)
    plain = replace(plain, audit=replace(plain.audit, quantized_fraction=float(recipe.startswith("gptq"))))
    what = cell(recipe, engine, TASK)
    return Result("d", "demo", what, 0, "ok", CPU, artifact=plain, facts={"x": 1}, metrics=metrics)


RECORDS = [
    *(scored(recipe, NLL) for recipe in ("baseline", "gptq-4", "gptq-3")),
    scored("gguf-f16", NLL, "llamacpp"),
    replace(
        diverged("baseline", 1.6e-9, 1.0),
        metrics={
            **diverged("baseline", 1.6e-9, 1.0).metrics,
            "top1_agreement_low_fraction": 1.0,
            "top1_agreement_high_fraction": 1.0,
        },
    ),
    diverged("gptq-4", 0.0312, 0.9123),
    diverged("gptq-3", 0.312, 0.7123),
    diverged("gguf-f16", 3.123e-6, 0.9951, "llamacpp"),
]


def test_small_divergences_are_no_zeros() -> None:
    """Below 0.0001 a figure has an exponent, and its interval too."""
    assert [number(v, 3) for v in (3.123e-6, 1.6e-9, 1.2e-12, 1e-4)] == ["3.1e-6", "1.6e-9", "1.2e-12", "0.000100"]
    figures = {k: spread([v]) for k, v in diverged("x", 3.123e-6, 0.9).metrics.items()}
    kl, top1 = metric_columns("divergence")
    assert format_interval(kl, figures) == "3.1e-6 ± 3.1e-7"
    assert format_interval(top1, figures) == "90.00 ± 0.40"


def test_mean_and_agreement_stand_beside_perplexity_in_120_columns() -> None:
    """Whole cells, whole recipe names; arrows point to the better side."""
    text = render(build(RECORDS), "terminal", 120)
    lines = text.splitlines()

    assert max(map(len, lines)) <= 120
    row = next(line for line in lines if line.startswith("gptq-4"))
    assert "0.031 ± 0.003" in row
    assert "91.23 ± 0.40" in row
    assert "+0.00 ± 0.00" in row
    assert "same top-1 % ↑" in render(build(RECORDS), "terminal", 200)
    assert "KL over stdlib-llama.cpp-512-16384t" in render(build(RECORDS), "md").replace("\\", "")


def test_the_noise_floor_is_told_below() -> None:
    """How far keeping the baseline moved it, and every row that is not quantized."""
    text = " ".join(render(build(RECORDS), "terminal", 120).split())

    assert (
        "noise floor of KL stdlib-llama.cpp-512-16384t, nats per token: 1.6e-9 stored; "
        "baseline on hf 1.6e-9; gguf-f16 on llamacpp 3.1e-6"
    ) in text
    assert "noise floor" not in render(build([scored("baseline", NLL)]), "terminal")


def test_csv_and_json_hold_what_the_table_leaves_out() -> None:
    """Quantiles, intervals, floor and the change of bits per byte, as stored."""
    rows = {row["recipe"]: row for row in csv.DictReader(io.StringIO(render(build(RECORDS), "csv")))}
    result = {k.rpartition("/")[2]: v for k, v in rows["gptq-4"].items() if k.startswith(TASK.name)}

    assert (result["kl_mean"], result["kl_mean_n"], result["kl_p99"]) == ("0.0312", "1", str(9 * 0.0312))
    assert (result["kl_floor"], result["bits_per_byte_change"]) == ("1.6e-09", "0.01")
    assert result["top1_agreement_low_fraction"] == str(0.9123 - 0.004)
    data = json.loads(render(build(RECORDS), "json"))
    assert data["rows"][0]["tasks"][TASK.name]["figures"]["kl_mean"]["median"] == 1.6e-9


def test_before_anything_ran_a_task_has_one_column_under_its_name() -> None:
    """What it measures is not known yet: no column of another task's metric."""
    expected = [cell("baseline", what=TASK), cell("baseline", what=PPL)]
    text = render(build([scored("baseline", NLL)], expected), "md").replace("\\", "")

    assert f"| {TASK.name} |" in text
    assert "not run yet" in text
    assert task_name(TASK.name) == "stdlib-llama.cpp-512-16384t"
    assert task_name("mine") == "mine"
