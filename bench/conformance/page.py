"""The verdicts as a page: a table of architectures, each reason once, the divergences, and what it was run with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from bench.conformance.check import Checked
from bench.conformance.verdict import GAP_NATS, GAPS_OF_EXPERTS, KL_BY_BITS, KL_OF_16_BITS, KL_OF_EXPERTS, Verdict
from bench.contract import outside
from bench.models import architectures

COMMAND = "python -m bench doctor --architectures"
_INTRODUCTION = f"""\
# Architectures

Which architectures go through which methods and engines, tried on a tiny model of each: four layers, a hidden size of
256, random weights at a scale at which a wrong position, norm or window changes every logit, and the demo model's
tokenizer. The configs are in `configs/architectures/`, what is made and run of each in `configs/conformance.yaml`.

```console
$ python -m bench list architectures
{{listed}}
```

*works*: the method made its artifact, the audit read it back as what was promised, the engine's logits on a text
longer than any window are Transformers' own of the unquantized model, and what it generates greedily, from a cache and
in a batch, is the likeliest by those logits. The mean KL divergence may be
{{bounds}}, and {KL_OF_16_BITS:g} more where an engine computes in 16 bits; a generated token
may be {GAP_NATS:g} nats from the likeliest. Pruned models are others, and have no bound on the first.
Models with experts have {KL_OF_EXPERTS:g} more wherever something is rounded, and {GAPS_OF_EXPERTS:.0%} of their
generated tokens may be further off: see below.
*no*: unsupported, known before anything is run, or refused by the library; a number in brackets is its reason below.
*12 % quantized*: it works, and that is the share of the linear weights that the library quantized (experts that are one
tensor are no linear layers to it).
*fails*: it ran, or should have, and is wrong. A blank was not run.
"""
_EXPERTS = f"""\
## Why experts have other bounds

A router takes the likeliest experts. Where the last that it takes and the first that it leaves are nearly as likely,
any rounding exchanges the two, and the token's output jumps. With all weights of mixtral and qwen3-moe rounded to 8
bits, on 1,024 tokens, 1.9 and 2.8 % of the routers' choices were others, which met 6.5 and 8.1 % of the tokens and cost
these 0.43 and 0.70 nats each. The mean KL was 0.037 and 0.061, the median 0.006 and 0.004. With the unrounded model's
choices forced on the same weights it was 0.004 and 0.002, as in llama, which has no experts: 0.004
(`tests/conformance/test_experts.py` does the same on other tokens). So rounding explains 8 % of 0.7 nats, and the bound
is twice that: {KL_OF_EXPERTS:g}.

llama.cpp multiplies k-quants in another way for a few tokens than for many, and rounds otherwise: on Llama's q4_k_m
token by token and in one pass differ by a KL of 0.007, and by no more than 0.02 at any token. On the models with
experts it was 0.03 to 0.09, and 4 to 14 % of the tokens were moved by more than 0.1 nats, some by 2; in passes of 64
tokens, and in f16, nothing moved. Both are right: it generates by what a step computes. So {GAPS_OF_EXPERTS:.0%} of the
generated tokens may be far from the likeliest by a whole pass; a cache that lost something moves most.
"""
_MOST_OF_IT = 0.6  # of the linear weights: a head of its own is 0.3 of these models
_WORDS = {"works": "works", "unsupported": "no", "fails": "fails", "not run": ""}


def page(checked: Checked, command: str) -> str:
    """The page in Markdown."""
    bounds = ", ".join(f"{most:g} nats a token {_at(width)}" for width, most in KL_BY_BITS)
    names = architectures.names()
    width = max(map(len, names))
    listed = "\n".join(f"{name:<{width}}  {architectures.summary(name)}" for name in names)
    parts = [
        _INTRODUCTION.format(bounds=bounds, listed=listed),
        f"{summary(checked.verdicts)}.\n",
        *table(checked.verdicts),
        "",
        "## Divergence from Transformers\n",
        "Mean KL on the same 252 tokens, in nats a token, of what ran.\n",
        *_divergences(checked.verdicts),
        "",
        _EXPERTS,
        "## What it was run with\n",
        *_environment(checked, command),
    ]
    return "\n".join(parts) + "\n"


def lines(checked: Checked) -> Iterator[str]:
    """The verdicts for a terminal: a line each that does not work, after the count of those that do."""
    yield summary(checked.verdicts)
    for verdict in checked.verdicts:
        if verdict.status != "works":
            reason = f": {verdict.reason}" if verdict.reason else ""
            yield f"{verdict.architecture}/{verdict.recipe}/{verdict.engine} {verdict.status}{reason}"


def summary(verdicts: Sequence[Verdict]) -> str:
    """How many cells are of each status."""
    counts: Counter[str] = Counter(verdict.status for verdict in verdicts)
    phrases = {"works": "work", "unsupported": "are unsupported", "fails": "fail", "not run": "were not run"}
    listed = ", ".join(f"{counts[status]} {phrase}" for status, phrase in phrases.items() if counts[status])
    return f"Of {len(verdicts)} cells {listed}"


def table(verdicts: Sequence[Verdict]) -> list[str]:
    """A row per recipe and engine, a column per architecture; then the reasons, numbered, each once."""
    reasons: dict[str, int] = {}
    rows = []
    for pair, row in _rows(verdicts):
        cells = [_cell(verdict, reasons) for verdict in row]
        rows.append([*pair, *cells])
    notes = [f"[{number}] {outside.markdown_text(reason)}  " for reason, number in reasons.items()]
    return [*_piped(["recipe", "engine", *_columns(verdicts)], rows), "", *notes]


def _cell(verdict: Verdict | None, reasons: dict[str, int]) -> str:
    if verdict is None:
        return ""
    word = _WORDS[verdict.status]
    if verdict.status == "works" and verdict.quantized_fraction and verdict.quantized_fraction < _MOST_OF_IT:
        word = f"{word}, {verdict.quantized_fraction:.0%} quantized"
    return f"{word} [{reasons.setdefault(verdict.reason, len(reasons) + 1)}]" if verdict.reason else word


def _divergences(verdicts: Sequence[Verdict]) -> list[str]:
    rows = []
    for pair, row in _rows(verdicts):
        numbers = ["" if verdict is None or verdict.kl is None else f"{verdict.kl:.1g}" for verdict in row]
        if any(numbers):
            rows.append([*pair, *numbers])
    return _piped(["recipe", "engine", *_columns(verdicts)], rows)


def _environment(checked: Checked, command: str) -> Iterator[str]:
    hardware = checked.hardware
    yield f"    {command}\n"
    cores = f"{hardware.physical_cores} cores"
    yield f"- {datetime.now(UTC):%d %b %Y}, {hardware.cpu}, {cores}, on the {hardware.device.upper()}"
    yield f"- instructions: {', '.join(hardware.isa)}"
    for name, versions in checked.environments.items():
        yield f"- `{name}`: {', '.join(f'{package} {version}' for package, version in versions.items())}"


def _rows(verdicts: Sequence[Verdict]) -> Iterator[tuple[tuple[str, str], list[Verdict | None]]]:
    """Each recipe and engine with its verdicts by architecture, in the order of the suite."""
    by_cell = {(v.recipe, v.engine, v.architecture): v for v in verdicts}
    for recipe, engine in dict.fromkeys((v.recipe, v.engine) for v in verdicts):
        yield (recipe, engine), [by_cell.get((recipe, engine, name)) for name in _columns(verdicts)]


def _columns(verdicts: Sequence[Verdict]) -> list[str]:
    return list(dict.fromkeys(verdict.architecture for verdict in verdicts))


def _piped(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def _at(width: float) -> str:
    return {16.0: "in floats", 8.0: "at 8 bits"}.get(width, "at fewer")
