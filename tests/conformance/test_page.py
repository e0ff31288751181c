"""The page of architectures from verdicts, and the committed one."""

from __future__ import annotations

from bench.conformance import page
from bench.conformance.check import SUITE, Checked
from bench.conformance.verdict import Verdict
from bench.contract.record import Hardware
from bench.models import architectures
from bench.suite import config
from tests.conftest import ROOT

_WHY = "the builder knows no | of that kind"
_VERDICTS = (
    Verdict("llama", "baseline", "hf", "works", kl=3.6e-9),
    Verdict("llama", "onnx-fp32", "onnxruntime", "works", kl=0.00123),
    Verdict("opt", "baseline", "hf", "fails", "its logits are not the baseline's", 4.0),
    Verdict("opt", "onnx-fp32", "onnxruntime", "unsupported", _WHY),
    Verdict("opt", "onnx-int4", "onnxruntime", "unsupported", _WHY),
)
_HARDWARE = Hardware("cpu", "cpu", "CPU", 1 << 30, "A CPU", 2, 1 << 30, ("avx2",), "float32", "Linux")
_CHECKED = Checked(_VERDICTS, _HARDWARE, {"hf": {"torch": "2.13.0"}})


def test_the_table_has_each_reason_once() -> None:
    """A row per recipe and engine, a column per architecture; what could break the table is escaped."""
    assert page.table(_VERDICTS) == [
        "| recipe | engine | llama | opt |",
        "| --- | --- | --- | --- |",
        "| baseline | hf | works | fails [1] |",
        "| onnx-fp32 | onnxruntime | works | no [2] |",
        "| onnx-int4 | onnxruntime |  | no [2] |",
        "",
        "[1] its logits are not the baseline's  ",
        "[2] the builder knows no \\| of that kind  ",
    ]


def test_a_page_says_what_it_was_run_with() -> None:
    """The command, the CPU and its instructions, the versions; and the divergence of what ran."""
    text = page.page(_CHECKED, f"{page.COMMAND} --write p.md")

    assert f"    {page.COMMAND} --write p.md\n" in text
    assert "A CPU, 2 cores" in text
    assert "- instructions: avx2" in text
    assert "- `hf`: torch 2.13.0" in text
    assert "| onnx-fp32 | onnxruntime | 0.001 |  |" in text


def test_a_terminal_is_told_what_does_not_work() -> None:
    """After the count of what does."""
    assert list(page.lines(_CHECKED)) == [
        "Of 5 cells 2 work, 2 are unsupported, 1 fail",
        "opt/baseline/hf fails: its logits are not the baseline's",
        f"opt/onnx-fp32/onnxruntime unsupported: {_WHY}",
        f"opt/onnx-int4/onnxruntime unsupported: {_WHY}",
    ]


def test_the_committed_page_has_every_architecture_and_recipe() -> None:
    """A new config or recipe asks for the page to be run again; nothing in it was left out."""
    text = (ROOT / "docs/architectures.md").read_text(encoding="utf-8")
    head = next(line for line in text.splitlines() if line.startswith("| recipe"))

    assert head == f"| recipe | engine | {' | '.join(architectures.names())} |"
    for recipe in config.load_suite(SUITE).recipes:
        assert f"\n| {recipe.name} | " in text
    assert "Traceback" not in text
