"""What the first token of a calibration window is worth: GPTQ against rounding, by kind of layer and as a whole.

Run from the repository's root by the hf environment's interpreter (`python -m bench envs list` shows it), with
a model's folder, a text to calibrate on and another to score:

    HF_PYTHON -m benchmarks.first_token_weight FOLDER --calibration wiki.valid.raw --evaluation wiki.test.raw

Every later token attends to the first one of its window. Where a model made it an attention sink, an error in
its value moves every output; but it is one token in `--length` of the Hessian. Here a plain GPTQ (groups with
their own scale, symmetric, columns in order; inputs from the unquantized model) rounds one kind of layer at a
time (all layers' v_proj, and so on), then all of them. A weight is what the methods' option first_token_weight
is: 1 leaves tokens as they are, else the first counts so many times, as if it were no larger than others; with
`--by-count` whatever its size.
KL is the mean of KL(unquantized || rounded) over the scored tokens, in nats. `error` is the mean over layers of
|(W - Q) x|^2 / |W x|^2, at the first tokens and at the others. Scored tokens are those of the second half of
each window, as llama.cpp's perplexity has it, and windows begin with BOS where the model adds one; calibration
windows do where `--bos` is given. `--artifact NAME=FOLDER` scores what a recipe made, beside.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks import script
from quantize import calibration, first_token, transformer

_LEVELS = 15  # of 4 bits, symmetric: -8 .. 7
_BLOCK = 64  # columns whose errors are carried to the later ones together


@dataclass(frozen=True)
class Inputs:
    """Of one linear layer: sums of x x' over the calibration text, float32 [in, in], of first tokens and of others."""

    first: Any
    others: Any
    length: int

    def hessian(self, weight: float, *, by_count: bool) -> Any:
        """First tokens count `weight` times, as if no larger than others or as they are."""
        if by_count or weight == 1:
            return self.others + weight * self.first
        others, first = float(self.others.trace()) / self.length, float(self.first.trace())
        return self.others + first_token.count(weight, first, others) * self.first


@dataclass(frozen=True)
class Score:
    """Means over scored tokens; KL in nats."""

    perplexity: float
    kl: float


def main() -> None:
    parser = script.parser(__doc__, samples=128, length=512, windows=4, threads=2, group=64)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--calibration", required=True, type=Path)
    parser.add_argument("--evaluation", required=True, type=Path)
    parser.add_argument(
        "--weights", type=float, nargs="*", default=[1.0, 11.0, 101.0, 1001.0], help="none: artifacts alone"
    )
    parser.add_argument("--damp", type=float, default=0.05, help="share of the Hessian's mean diagonal added to it")
    parser.add_argument("--bos", action="store_true", help="calibration windows begin with BOS, too")
    parser.add_argument("--by-count", action="store_true", help="first tokens keep their size")
    parser.add_argument("--kinds", nargs="*", help="only these, for example v_proj; none: all at once alone")
    parser.add_argument("--artifact", action="append", default=[], metavar="NAME=FOLDER")
    given = parser.parse_args()
    import torch

    torch.set_num_threads(given.threads)
    torch.set_grad_enabled(False)
    model = transformer.load(given.folder, "cpu")
    reference = _Reference(model, _windows(given.folder, given.evaluation, given.length, given.windows))
    whole = {"unquantized": _row("unquantized", reference.score(model))}
    for artifact in given.artifact:
        name, _, folder = artifact.partition("=")
        whole[name] = _row(name, reference.score(_load_artifact(Path(folder))))
    if given.weights:
        by_kind, every = _by_plain_gptq(model, reference, given)
        whole |= every
        if by_kind:
            print(f"\nKL by kind of layer, {reference.title}")
            _table({kind: {name: f"{its.kl:.4f}" for name, its in scores.items()} for kind, scores in by_kind.items()})
    print(f"\nall layers, {reference.title}")
    _table({title: {"perplexity": f"{its.perplexity:.2f}", "KL": f"{its.kl:.4f}"} for title, its in whole.items()})


def _by_plain_gptq(
    model: Any, reference: _Reference, given: argparse.Namespace
) -> tuple[dict[str, dict[str, Score]], dict[str, Score]]:
    """Scores by kind of layer and rounding, and by rounding of all kinds, for which NF4 is one too."""
    text = calibration.samples(given.folder, f"path:{given.calibration}", given.samples, given.length, seed=0)
    ids = [_with_bos(given.folder, window) for window in text.ids] if given.bos else text.ids
    began = time.perf_counter()
    inputs = _collect(model, ids)
    print(f"inputs of {len(inputs)} layers over {text.tokens} tokens: {time.perf_counter() - began:.0f} s", flush=True)
    roundings, kinds = _roundings(inputs, given), _kinds(inputs)
    chosen = kinds if given.kinds is None else {kind: kinds[kind] for kind in given.kinds}

    def scores(name: str, layers: Sequence[str], choices: Mapping[str, _Rounding]) -> dict[str, Score]:
        by_title = {}
        for title, rounding in choices.items():
            with _rounded(model, layers, rounding) as errors:
                by_title[title] = _row(f"{name} {title}", reference.score(model), errors(inputs))
        return by_title

    by_kind = {kind: scores(kind, names, roundings) for kind, names in chosen.items()}
    nf4: _Rounding = lambda _, weight: _nf4(weight)  # noqa: E731
    return by_kind, scores("all", [name for names in kinds.values() for name in names], {**roundings, "nf4": nf4})


class _Reference:
    """The unquantized model's log-probabilities at the scored tokens of each window."""

    def __init__(self, model: Any, windows: Sequence[Sequence[int]]) -> None:
        self.windows = windows
        self.expected = [self._logprobs(model, window) for window in windows]
        self.title = f"{sum(map(len, self.expected))} tokens in {len(windows)} windows of {len(windows[0])}"

    def score(self, model: Any) -> Score:
        nll, kl = [], []
        for window, expected in zip(self.windows, self.expected, strict=True):
            actual = self._logprobs(model, window)
            kl += (expected.exp() * (expected - actual)).sum(dim=1).tolist()
            nll += [-float(actual[row, token]) for row, token in enumerate(window[len(window) // 2 + 1 :])]
        return Score(math.exp(sum(nll) / len(nll)), sum(kl) / len(kl))

    @staticmethod
    def _logprobs(model: Any, window: Sequence[int]) -> Any:
        """Float32 [scored, vocab]."""
        import torch

        rows = torch.arange(len(window) // 2, len(window) - 1)
        logits = model(input_ids=torch.tensor([window]), use_cache=False, logits_to_keep=rows).logits[0]
        return logits.float().log_softmax(dim=1)


def _windows(folder: Path, file: Path, length: int, count: int) -> list[list[int]]:
    """The first `count` windows of the text, the first token of each replaced by BOS where the model adds one."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = tokenizer.encode(file.read_text(encoding="utf-8"), add_special_tokens=False).ids
    starts = range(0, len(ids) - length + 1, length)
    return [_with_bos(folder, ids[start : start + length]) for start in (starts[:count] if count else starts)]


def _with_bos(folder: Path, window: Sequence[int]) -> list[int]:
    from tokenizers import Tokenizer

    added = Tokenizer.from_file(str(folder / "tokenizer.json")).encode("").ids
    return [*added[:1], *window[len(added[:1]) :]]


def _load_artifact(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype="float32", local_files_only=True).eval()


def _collect(model: Any, ids: Sequence[Sequence[int]]) -> dict[str, Inputs]:
    """For each linear layer of the blocks its inputs; layers that read one tensor share them."""
    import torch

    name, blocks = transformer.blocks(model)
    layers = {f"{name}.{inner}": layer for inner, layer in transformer.linears(blocks).items()}
    sums: dict[str, Inputs] = {}
    last: list[Any] = [None, ""]  # the tensor read last, and the layer that read it first
    source: dict[str, str] = {}

    def hook(layer: str) -> Callable[[Any, Any], None]:
        def add(_: Any, inputs: tuple[Any, ...]) -> None:
            if inputs[0] is not last[0]:
                last[:] = [inputs[0], layer]
            source[layer] = last[1]
            if source[layer] == layer:
                _add(sums, layer, inputs[0])

        return add

    handles = [layer.register_forward_pre_hook(hook(path)) for path, layer in layers.items()]
    for start in range(0, len(ids), transformer.BATCH):
        model.base_model(input_ids=torch.tensor(ids[start : start + transformer.BATCH]), use_cache=False)
    for handle in handles:
        handle.remove()
    return {layer: sums[source[layer]] for layer in layers}


def _add(sums: dict[str, Inputs], layer: str, inputs: Any) -> None:
    width = inputs.shape[-1]
    if layer not in sums:
        sums[layer] = Inputs(inputs.new_zeros(width, width), inputs.new_zeros(width, width), inputs.shape[1] - 1)
    for total, rows in ((sums[layer].first, inputs[:, 0]), (sums[layer].others, inputs[:, 1:].flatten(0, 1))):
        total.addmm_(rows.T, rows)


def _kinds(names: Mapping[str, Any]) -> dict[str, list[str]]:
    kinds: dict[str, list[str]] = {}
    for name in names:
        kinds.setdefault(name.rpartition(".")[2], []).append(name)
    return kinds


_Rounding = Callable[[str, Any], Any]  # a layer's name and weight to the weight it becomes


def _roundings(inputs: Mapping[str, Inputs], given: argparse.Namespace) -> dict[str, _Rounding]:
    def by_gptq(times: float) -> _Rounding:
        return cache(
            lambda name, weight: _gptq(
                weight, inputs[name].hessian(times, by_count=given.by_count), given.group, given.damp
            )
        )

    return {
        "rounding": lambda _, weight: _nearest(weight, given.group),
        **{f"gptq x{times:g}": by_gptq(times) for times in given.weights},
    }


class _rounded:  # noqa: N801  (a context manager, used as a function)
    """While it is entered these layers have rounded weights; it gives their mean errors at first and other tokens."""

    def __init__(self, model: Any, names: Sequence[str], rounding: _Rounding) -> None:
        self.layers = {name: model.get_submodule(name) for name in names}
        self.rounding = rounding

    def __enter__(self) -> Callable[[Mapping[str, Inputs]], tuple[float, float]]:
        self.stored = {name: layer.weight.data for name, layer in self.layers.items()}
        for name, layer in self.layers.items():
            layer.weight.data = self.rounding(name, self.stored[name])
        return self.errors

    def __exit__(self, *_: object) -> None:
        for name, layer in self.layers.items():
            layer.weight.data = self.stored[name]

    def errors(self, inputs: Mapping[str, Inputs]) -> tuple[float, float]:
        rows = []
        for name, layer in self.layers.items():
            weight, change = self.stored[name], layer.weight.data - self.stored[name]
            rows.append([_energy(change, h) / _energy(weight, h) for h in (inputs[name].first, inputs[name].others)])
        return sum(row[0] for row in rows) / len(rows), sum(row[1] for row in rows) / len(rows)


def _energy(weight: Any, hessian: Any) -> float:
    """The sum of |weight x|^2 over the tokens of a Hessian."""
    return float(((weight @ hessian) * weight).sum())


def _scale(weights: Any, axis: int) -> Any:
    """The step of each group, which `axis` goes through."""
    return (2 * weights.abs().amax(dim=axis, keepdim=True) / _LEVELS).clamp(min=1e-12)


def _round(columns: Any, scale: Any) -> Any:
    return (columns / scale).round().clamp(-8, 7) * scale


def _nearest(weight: Any, group: int) -> Any:
    grouped = weight.reshape(-1, group)
    return _round(grouped, _scale(grouped, axis=1)).reshape(weight.shape)


def _nf4(weight: Any) -> Any:
    from bitsandbytes import functional

    packed, state = functional.quantize_4bit(weight.contiguous(), blocksize=64, quant_type="nf4")
    return functional.dequantize_4bit(packed, state).to(weight.dtype)


def _gptq(weight: Any, hessian: Any, group: int, damp: float) -> Any:
    """Frantar et al., 2022 (arXiv:2210.17323), algorithm 1; a group's scale is taken when its columns are reached."""
    import torch

    columns, hessian = weight.T.contiguous(), hessian.clone()  # [in, out]: a column of the weight is a row here
    size = len(columns)
    diagonal = hessian.diagonal()
    dead = diagonal == 0
    diagonal[dead] = 1
    columns[dead] = 0
    diagonal += damp * diagonal.mean()
    inverse = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(hessian)), upper=True)
    for start in range(0, size, _BLOCK):
        stop = min(start + _BLOCK, size)
        errors = []
        for column in range(start, stop):
            if column % group == 0:
                scale = _scale(columns[column : column + group], axis=0)[0]
            rounded = _round(columns[column], scale)
            errors.append((columns[column] - rounded) / inverse[column, column])
            columns[column + 1 : stop].addr_(inverse[column, column + 1 : stop], errors[-1], alpha=-1)
            columns[column] = rounded
        columns[stop:].addmm_(inverse[start:stop, stop:].T, torch.stack(errors), alpha=-1)
    return columns.T.contiguous()


def _row(title: str, score: Score, errors: tuple[float, float] | None = None) -> Score:
    at = "" if errors is None else f"   error {errors[0]:.4f} first, {errors[1]:.4f} others"
    print(f"{title:24} ppl {score.perplexity:8.3f}   KL {score.kl:.4f}{at}", flush=True)
    return score


def _table(rows: Mapping[str, Mapping[str, str]]) -> None:
    """As Markdown."""
    heads = list(dict.fromkeys(head for row in rows.values() for head in row))
    print(f"| | {' | '.join(heads)} |\n| --- |{' ---: |' * len(heads)}")
    for name, row in rows.items():
        print(f"| {name} | {' | '.join(row.get(head, '') for head in heads)} |")


if __name__ == "__main__":
    main()
