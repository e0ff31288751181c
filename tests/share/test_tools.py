"""Other tools' files, as these tools wrote them (files/README.md): each figure under the name that it has here."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from bench.contract.record import Result
from bench.contract.workload import Closed, Open
from bench.publish import report
from bench.publish.compare.selectors import Filter, selections
from bench.share import imports
from bench.share.tools import Names, vllm_bench
from bench.share.tools.measurement import MalformedError
from bench.store import Store
from tests.conftest import Command
from tests.share.conftest import timed

FILES = Path(__file__).parent / "files"


@pytest.fixture
def root(tmp_path: Path, cache: Path) -> Path:
    """A results folder that is not there yet."""
    assert cache.is_dir()
    return tmp_path / "results"


def _raw(name: str) -> Any:
    return json.loads((FILES / name).read_text())


def _imported(root: Path, *names: str, words: Names | None = None) -> list[Result]:
    imports.import_files([FILES / name for name in names], root, "", words)
    store = Store(root)
    records = list(store.all())
    assert store.problems == []
    assert all(record.marks == ("foreign", "other-tool") for record in records)
    return records


def test_vllm_bench_is_in_milliseconds_and_its_tpot_is_ours(root: Path) -> None:
    """TPOT from its own requests by this suite's definition is what it printed, and what is imported."""
    (record,) = _imported(root, "vllm-bench.json")
    raw, metrics = _raw("vllm-bench.json"), record.metrics
    ours = median(
        (latency - ttft) / (tokens - 1)
        for latency, ttft, tokens in zip(raw["latencies"], raw["ttfts"], raw["output_lens"], strict=True)
    )

    assert metrics["tpot_s"] == pytest.approx(ours, rel=1e-5)
    assert metrics["ttft_s"] == pytest.approx(median(raw["ttfts"]), rel=1e-5)
    assert metrics["e2el_s"] == pytest.approx(median(raw["latencies"]), rel=1e-5)
    assert metrics["itl_p50_s"] == pytest.approx(median(gap for gaps in raw["itls"] for gap in gaps), rel=1e-5)
    assert metrics["ttft_p95_s"] == pytest.approx(raw["p95_ttft_ms"] / 1e3, rel=1e-5)
    assert "ttft_p99_s" not in metrics  # of 24 requests it is but the largest
    assert metrics["itl_p99_s"] == pytest.approx(raw["p99_itl_ms"] / 1e3, rel=1e-5)
    assert metrics["output_tok_per_s"] == pytest.approx(raw["total_output_tokens"] / raw["duration"], rel=1e-5)
    assert isinstance(record.cell.workload, Closed)
    assert (record.cell.workload.concurrency, record.cell.workload.requests) == (2, 24)
    assert record.cell.engine.title == "vllm-bench"
    assert any("lengths varied" in note for note in record.facts["tool_notes"])


def test_a_rate_of_vllm_bench_is_an_open_load(root: Path) -> None:
    """Poisson's, as its burstiness is 1."""
    (record,) = _imported(root, "vllm-bench-rate.json")

    assert isinstance(record.cell.workload, Open)
    assert (record.cell.workload.rate_per_s, record.cell.workload.arrivals) == (4.0, "poisson")
    assert any("when it was due" in note for note in record.facts["tool_notes"])


def test_guidellms_itl_is_our_tpot(root: Path) -> None:
    """By its own requests; its TPOT, which has the first token's time in it, is not imported."""
    (record,) = _imported(root, "guidellm.json")
    (benchmark,) = _raw("guidellm.json")["benchmarks"]
    requests = benchmark["requests"]["successful"]
    timings = [(each["info"]["timings"], each["output_tokens"]) for each in requests]
    tpots = [(t["last_token_iteration"] - t["first_token_iteration"]) / (n - 1) for t, n in timings]
    ttfts = [t["first_token_iteration"] - t["request_start"] for t, _ in timings]

    # guidellm's median of an even number is the upper or the lower of the two in the middle.
    assert record.metrics["tpot_s"] == pytest.approx(median(tpots), rel=0.02)
    assert min(abs(record.metrics["tpot_s"] - tpot) for tpot in tpots) < 1e-6
    assert min(abs(record.metrics["ttft_s"] - ttft) for ttft in ttfts) < 1e-6
    assert record.metrics["e2el_s"] == pytest.approx(benchmark["metrics"]["request_latency"]["successful"]["median"])
    assert record.metrics["output_tok_per_s"] == pytest.approx(24 * 32 / benchmark["duration"], rel=1e-5)
    assert record.metrics["request_per_s"] == pytest.approx(24 / benchmark["duration"], rel=1e-5)
    assert not any(name.startswith("itl") for name in record.metrics)
    assert "tpot_p99_s" not in record.metrics
    assert record.cell.measurement == "closed-c2-p70-n32"
    assert record.environment == {"guidellm": "0.8.1"}
    assert record.started == "2026-11-29T12:23:38+00:00"


def test_a_time_that_a_file_does_not_say_is_none(root: Path, tmp_path: Path) -> None:
    """And not the year 1970."""
    raw = _raw("guidellm.json")
    for benchmark in raw["benchmarks"]:
        del benchmark["start_time"]
    (file := tmp_path / "g.json").write_text(json.dumps(raw))
    imports.import_files([file], root)

    assert [record.started for record in Store(root).all()] == [""]


def test_llama_bench_has_a_record_for_each_test(root: Path) -> None:
    """Prompt processing and generation by the median repetition, at each depth."""
    records = {record.cell.measurement: record for record in _imported(root, "llama-bench.json")}
    pp, tg, *_ = _raw("llama-bench.json")

    assert sorted(records) == [f"llama-bench-{test}" for test in ("pp128", "pp128@d256", "tg64", "tg64@d256")]
    prompt, generation = records["llama-bench-pp128"], records["llama-bench-tg64"]
    assert prompt.metrics["prefill_tok_per_s"] == pytest.approx(128e9 / median(pp["samples_ns"]), rel=1e-5)
    assert generation.metrics["decode_tok_per_s"] == pytest.approx(median(tg["samples_ts"]), rel=1e-4)
    assert generation.metrics["tpot_s"] == pytest.approx(median(tg["samples_ns"]) / 64e9, rel=1e-5)
    assert "ttft_s" not in prompt.metrics
    assert generation.cell.recipe.name == "llama ?B Q4_K - Medium"
    assert generation.hardware.cpu == "AMD EPYC"
    assert generation.facts["n_threads"] == 2


def test_lm_evals_scores_stand_under_this_suites_task(root: Path) -> None:
    """As an accuracy with Wilson's interval, the number of items, and the task's title with its limit."""
    (record,) = _imported(root, "lm-eval.json")

    assert record.cell.measurement == "lm_eval-stdlib_argument-40items"
    assert record.metrics["accuracy_fraction"] == 0.875
    assert record.metrics["accuracy_stderr_fraction"] == pytest.approx(0.0529574)
    assert 0.73 < record.metrics["accuracy_low_fraction"] < 0.75
    assert 0.94 < record.metrics["accuracy_high_fraction"] < 0.95
    assert (record.metrics["acc_norm"], record.metrics["scored_items"]) == (0.75, 40)
    assert record.environment == {"lm-eval": "0.4.13", "transformers": "5.23.0"}
    assert (record.hardware.cpu, record.cell.model.label) == ("AMD EPYC", "demo")


def test_what_a_file_does_not_say_can_be_said(root: Path) -> None:
    """Suite, model, recipe and engine as this machine's have them, so that both compare as devices."""
    words = Names("mine", "demo", "gptq-4", "hf")
    (record,) = _imported(root, "vllm-bench.json", words=words)
    cell = record.cell
    Store(root).put(timed())
    one, two = selections("cpu-x-2c-8gib", record.hardware.slug, root, Filter())

    assert (record.suite, cell.model.label, cell.recipe.name, cell.engine.title) == ("mine", "demo", "gptq-4", "hf")
    assert [len(one.records), len(two.records)] == [1, 1]


def test_several_files_are_one_device_and_those_of_one_load_its_rounds(root: Path, tmp_path: Path) -> None:
    """A second file of the same load is a second round."""
    raw = _raw("vllm-bench.json")
    (tmp_path / "second.json").write_text(json.dumps({**raw, "median_ttft_ms": raw["median_ttft_ms"] + 1}))
    files = [FILES / "vllm-bench.json", FILES / "vllm-bench-rate.json", tmp_path / "second.json"]
    (imported,) = imports.import_files(files, root, "theirs")
    records = list(Store(root).all())

    assert imported.folder.name == "foreign-theirs"
    assert sorted((record.cell.workload or Closed()).kind + str(record.round) for record in records) == [
        *("closed0", "closed1"),
        "open0",
    ]


def test_tables_tell_that_figures_are_another_tools(root: Path) -> None:
    """By the marks and their legend; nothing is called the baseline."""
    names = ("guidellm.json", "llama-bench.json", "lm-eval.json", "vllm-bench.json", "vllm-bench-rate.json")
    for name in names:
        imports.import_files([FILES / name], root, name.removesuffix(".json"))
    report.write(root)
    pages = {path.parent.name: path.read_text() for path in root.glob("*/TABLES.md")}

    assert pages.keys() == {f"foreign-{name.removesuffix('.json')}" for name in names}
    for page in pages.values():
        assert "other-tool: figures of another tool, by its definitions" in page
        assert "a machine that the file does not name" in page or "AMD EPYC" in page
        assert "| baseline |" not in page
        assert "0 cores" not in page
    assert "its ITL is this suite's TPOT" in pages["foreign-guidellm"]
    assert (root / "report.html").is_file()


def test_no_path_of_the_machine_that_measured_is_kept(root: Path, tmp_path: Path) -> None:
    """A model's folder there is nobody's business."""
    (file := tmp_path / "v.json").write_text(json.dumps({**_raw("vllm-bench.json"), "model_id": "/home/me/m-7b"}))
    imports.import_files([file], root)
    (record,) = Store(root).all()

    assert record.cell.model.label == "m-7b"
    assert "/home" not in json.dumps([record.facts, vars(record.cell.recipe), vars(record.cell.model)], default=str)


def test_the_command_prints_where_definitions_differ(command: Command, root: Path) -> None:
    """Below the folder, a line each; `--json` has all of it."""
    done = command("bench", "import", str(FILES / "guidellm.json"), "--as", "g", "--results", str(root))
    again = command("bench", "import", str(FILES / "lm-eval.json"), "--json", "--results", str(root))

    first, *notes = done.stdout.splitlines()
    assert (done.returncode, first) == (0, f"{root}/foreign-g: 1 records of guidellm.json")
    assert notes[0].startswith("  guidellm: its ITL is this suite's TPOT")
    assert json.loads(again.stdout)[0]["kind"] == "lm-eval"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"completed": 0}, "no request was completed"),
        ({"median_ttft_ms": "fast"}, "median_ttft_ms: Input should be a valid number"),
        ({"median_tpot_ms": float("nan")}, "median_tpot_ms"),
        ({"duration": -1}, "duration: "),
        ({"ramp_up_strategy": "linear"}, "its rate rose"),
        ({"request_rate": 0}, "request_rate and burstiness"),
    ],
)
def test_a_file_that_is_not_as_its_tool_writes_it_is_named(change: dict[str, Any], sentence: str) -> None:
    """With the field."""
    with pytest.raises(MalformedError, match=sentence):
        vllm_bench.read({**_raw("vllm-bench.json"), **change})
