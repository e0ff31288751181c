"""Predictions of a suite's offline cells on a GPU that is not here: the roofline, times what engines add to it.

The roofline comes from the vendor's data sheet; the engines' overhead and efficiency from the records of other
devices (bench.measure.predict). A prediction is never a record, and no table mixes the two.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from bench import formats
from bench.contract import wire
from bench.contract.errors import UserError
from bench.contract.record import Architecture, Ceiling, Gpu, Hardware, Result
from bench.contract.spec import Cell, Suite
from bench.contract.speculation import method_of
from bench.contract.workload import Offline
from bench.machine import gpus
from bench.machine import hardware as machine
from bench.measure import roofline
from bench.measure.predict import Error, LatencyModel, Sample, error, fit, hold_out
from bench.run import memory_fit, plan
from bench.run.planned import PlannedRound

DRIVER = "not here"


@dataclass(frozen=True)
class CalibrationSet:
    """Measured cells that predictions are fitted to. `devices`: the results folders they come from."""

    steps: tuple[Sample, ...]
    prompts: tuple[Sample, ...]
    devices: tuple[str, ...]
    on_gpu: bool

    @property
    def step_error(self) -> Error | None:
        """Of TPOT, each cell predicted from the others: median and 90th percentile."""
        return error(hold_out(self.steps))

    @property
    def prompt_error(self) -> Error | None:
        return error(hold_out(self.prompts))


@dataclass(frozen=True)
class Prediction:
    """One cell. `reason`: why it cannot run there, or why nothing can be said; times are then None.

    `least`: by the roofline alone; `law`, `prompt_law`: whose overhead and efficiency TPOT and TTFT are by.
    """

    cell: Cell
    need: memory_fit.MemoryEstimate | None
    reason: str = ""
    ttft_s: float | None = None
    tpot_s: float | None = None
    least_ttft_s: float | None = None
    least_tpot_s: float | None = None
    law: LatencyModel | None = None
    prompt_law: LatencyModel | None = None

    def output_tok_per_s(self, *, least: bool = False) -> float | None:
        """Of the whole batch, from the prompt on."""
        load = self.cell.workload
        first, each = (self.least_ttft_s, self.least_tpot_s) if least else (self.ttft_s, self.tpot_s)
        if not isinstance(load, Offline) or first is None or each is None:
            return None
        return load.batch * load.new_tokens / (first + each * (load.new_tokens - 1))


def calibration_set(results: Iterable[Result]) -> CalibrationSet:
    """The offline cells that ran, each once, from GPUs if any was measured, else from CPUs."""
    rounds: dict[tuple[object, ...], list[Result]] = {}
    for result in results:
        load = result.cell.workload
        known = isinstance(load, Offline) and not load.prompts
        if known and result.status == "ok" and "roofline_s" in result.metrics:
            key = (result.hardware.slug, result.hardware.isa, result.suite, result.cell.title)
            rounds.setdefault(key, []).append(result)
    cells = list(rounds.values())
    on_gpu = [rounds for rounds in cells if rounds[0].hardware.gpus]
    chosen = on_gpu or cells
    steps = [_sample(rounds, _median(rounds, "roofline_s"), _median(rounds, "tpot_s")) for rounds in chosen]
    prompts = [sample for rounds in chosen if (sample := _prompt(rounds)) is not None]
    devices = tuple(dict.fromkeys(rounds[0].hardware.slug for rounds in chosen))
    return CalibrationSet(tuple(steps), tuple(prompts), devices, bool(on_gpu))


def predict(suite: Suite, gpu: str, measured: CalibrationSet, *, only: str = "", engine: str = "") -> list[Prediction]:
    """Every offline cell of the suite on that GPU, in the suite's order; UserError where it has none."""
    board = gpus.named(gpu)
    device = Gpu(0, board.names[0], int(board.memory_gb * 1e9), board.capability, DRIVER)
    (there,) = machine.describe(("cuda:0",), (device,))
    planned = plan.plan(suite, fetch=False, only=only, engine=engine, on=(there,))
    first = sorted((i for i in planned.items if i.round == 0), key=lambda i: i.order)
    offline = [(i, i.cell.workload) for i in first if isinstance(i.cell.workload, Offline)]
    if not offline:
        raise UserError("the suite has no offline cell to predict: add a workload without `kind`")
    return [_predict_cell(item, load, there, board.ceiling, measured) for item, load in offline]


def _predict_cell(
    item: PlannedRound, load: Offline, there: Hardware, ceiling: Ceiling, measured: CalibrationSet
) -> Prediction:
    footprint, options = item.artifact.footprint, item.cell.engine.options
    draft = item.draft.footprint if item.draft and method_of(options) == "draft" else None
    dtype = str(options.get("dtype", there.compute_dtype))
    need = memory_fit.estimate(footprint, options, load, there, dtype, draft) if footprint else None
    if load.prompts and not item.reason:
        return Prediction(item.cell, need, "the lengths of its prompts and answers are those of a file")
    if item.reason or footprint is None or need is None:
        return Prediction(item.cell, need, item.reason or "the size of its artifact is not known beforehand")
    shape = footprint.parameters.architecture
    least = _least(shape, footprint, need, load, dtype, ceiling) if shape else None
    if shape is None or least is None:
        return Prediction(item.cell, need, "no plain decoder, or a type the data sheet has no figure for")
    engine, written = item.cell.engine.name, item.artifact.format
    step, prompt = (fit(samples, engine, written) for samples in (measured.steps, measured.prompts))
    ttft_s = prompt.time_s(least[0], shape.layers) if prompt else None
    tpot_s = step.time_s(least[1], shape.layers) if step else None
    return Prediction(item.cell, need, "", ttft_s, tpot_s, *least, step, prompt)


def _least(
    shape: Architecture,
    footprint: memory_fit.Footprint,
    need: memory_fit.MemoryEstimate,
    load: Offline,
    dtype: str,
    ceiling: Ceiling,
) -> tuple[float, float] | None:
    """(TTFT, TPOT) of the roofline in seconds, computing in `dtype`."""
    limits = {"vendor": {"bandwidth": ceiling.bandwidth, "flop_per_s": ceiling.flop_per_s}}
    bandwidth, peak = roofline.bandwidth_for(limits, need.weights_bytes), roofline.flop_for(limits, (dtype,))
    if bandwidth is None or peak is None:
        return None
    context = load.depth_tokens + load.prompt_tokens + load.new_tokens / 2
    head = 0 if shape.tied_head else shape.vocab_size * shape.hidden
    parameters = footprint.parameters.linear + head
    unread = head * 2 if formats.converts_floats(footprint.format) else 0  # else the host keeps the embedding
    weights = need.weights_bytes - unread
    cache = load.batch * roofline.kv_bytes(shape, 16.0, context)
    work = load.batch * roofline.token_flop(shape, parameters, context)
    prompt = load.batch * roofline.prefill_flop(shape, parameters, load.prompt_tokens, load.depth_tokens)
    return (max(weights / bandwidth, prompt / peak), max((weights + cache) / bandwidth, work / peak))


def _prompt(rounds: Sequence[Result]) -> Sample | None:
    """A batch's prompts: reading the weights, or computing; None where one of the two is not known."""
    needed = ("mfu_fraction", "ceiling_bytes_per_s", "decode_step_bytes")
    if any(key not in result.metrics for result in rounds for key in needed):
        return None
    took = _median(rounds, "ttft_s")
    reading = _median(rounds, "decode_step_bytes") / _median(rounds, "ceiling_bytes_per_s")
    return _sample(rounds, max(reading, _median(rounds, "mfu_fraction") * took), took)


def _sample(rounds: Sequence[Result], least_s: float, took_s: float) -> Sample:
    first = rounds[0]
    shape = wire.build(Architecture, first.facts["architecture"])
    written = first.artifact.format if first.artifact else ""
    return Sample(first.cell.engine.name, written, shape.layers, least_s, took_s, first.cell.title)


def _median(rounds: Sequence[Result], key: str) -> float:
    return median(result.metrics[key] for result in rounds)
