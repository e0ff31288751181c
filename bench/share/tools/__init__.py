"""Other tools' files as records: which tool a file is of, and what each figure in it is here.

A module for each tool has `matches` and `read`. Figures are taken as the tool printed them, seconds for milliseconds;
where its definition is another one than bench/measure's, a note says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from bench.contract import wire
from bench.contract.errors import UserError
from bench.contract.record import Hardware, Result
from bench.contract.spec import Cell, EngineSpec, Model, Recipe
from bench.measure.sanity import FOREIGN, OTHER_TOOL
from bench.share.tools import guidellm, llama_bench, lm_eval, vllm_bench
from bench.share.tools.measurement import MalformedError, Measurement
from bench.store import Store

UNSTATED = "unstated"  # a model or a recipe that the file does not name


class Tool(Protocol):
    """A module of this folder. `matches`: whether a JSON value is one of its files; `read` may raise MalformedError."""

    NAME: str
    NOTES: tuple[str, ...]

    def matches(self, data: Any, /) -> bool: ...
    def read(self, data: Any, /) -> list[Measurement]: ...


TOOLS: tuple[Tool, ...] = (guidellm, vllm_bench, llama_bench, lm_eval)


@dataclass(frozen=True)
class Names:
    """What the files do not say, or say in other words, as it shall stand in tables; "" leaves what they say."""

    suite: str = ""
    model: str = ""
    recipe: str = ""
    engine: str = ""


@dataclass(frozen=True)
class ToolFile:
    """One file of a tool, read. `notes`: where its definitions are not this suite's."""

    tool: str
    file: str
    digest: str
    measurements: tuple[Measurement, ...]
    notes: tuple[str, ...]


def read(file: Path, text: bytes) -> ToolFile:
    """What a file holds; UserError for one that is no JSON, or of none of the tools."""
    known = ", ".join(tool.NAME for tool in TOOLS)
    try:
        data = wire.parse(text)
    except ValueError:
        raise UserError(f"{file} is neither a bundle nor JSON of one of {known}, or was cut short") from None
    tool = next((tool for tool in TOOLS if tool.matches(data)), None)
    if tool is None:
        raise UserError(f"{file} is JSON of none of the tools that are known: {known}")
    try:
        measurements = tuple(tool.read(data))
    except MalformedError as error:
        raise UserError(f"{file} is not as {tool.NAME} writes it: {error}") from None
    if not measurements:
        raise UserError(f"{file} has no results of {tool.NAME}: run it to its end")
    notes = dict.fromkeys((*tool.NOTES, *(note for each in measurements for note in each.notes)))
    return ToolFile(tool.NAME, file.name, wire.digest(data), measurements, tuple(notes))


def results(files: Sequence[ToolFile], device: str, names: Names) -> list[Result]:
    """A record for each measurement, the second one of a cell being its second round."""
    records = [record for file in files for record in _records(file, device, names)]
    rounds: dict[str, int] = {}
    numbered = []
    for record in records:
        path = Store(Path()).name(record)
        rounds[path] = rounds.get(path, -1) + 1
        numbered.append(replace(record, round=rounds[path]))
    return numbered


def _records(file: ToolFile, device: str, names: Names) -> Iterable[Result]:
    for number, each in enumerate(file.measurements):
        model = names.model or each.model or UNSTATED
        recipe = Recipe(names.recipe or each.recipe or UNSTATED, checkpoint=each.checkpoint or model)
        engine = EngineSpec(each.engine, label=names.engine or file.tool)
        facts = {**each.facts, "tool": file.tool, "file": file.file, "tool_notes": [*file.notes]}
        yield Result(
            digest=wire.digest([file.digest, number]),
            suite=names.suite or file.tool,
            cell=Cell(Model(model), recipe, engine, "foreign", each.workload, each.task),
            round=0,
            status="ok",
            hardware=_hardware(each, device),
            environment=each.environment,
            facts=facts,
            metrics=each.metrics,
            marks=(FOREIGN, OTHER_TOOL),
            started=each.started,
            duration_s=each.duration_s,
        )


def _hardware(each: Measurement, device: str) -> Hardware:
    """What the file says of the machine, which may be nothing."""
    cpu = each.cpu or "a machine that the file does not name"
    return Hardware("foreign", device, each.gpu or cpu, 0, cpu, 0, 0, (), "", each.system)
