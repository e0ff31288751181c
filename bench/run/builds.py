"""What rounds need beforehand, as stages: environments, artifacts and the inputs of tasks; each is built once."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TypeVar

from bench import formats, paths
from bench.contract import plugins
from bench.contract.errors import CellError
from bench.contract.job import Report
from bench.contract.record import Hardware, Result
from bench.contract.spec import Cell, EngineSpec
from bench.envs import environment
from bench.process import supervisor
from bench.progress.progress import Progress
from bench.run import artifacts, records, stages, task_inputs
from bench.run.artifacts import BuiltArtifact
from bench.run.planned import Plan, PlannedArtifact, PlannedRound, Reference, Requests
from bench.run.stages import Stage, TooLittleMemoryError
from bench.store import Store

T = TypeVar("T")
_GIB, _FLOAT_BYTES = 2**30, 4
_COPIES = 3  # of a model in float32 that a stage may hold: as loaded, as it becomes, and inputs of its layers


@dataclass
class Builds:
    """Of a plan on one device: artifacts by recipe and inputs by digest, or why there is none."""

    plan: Plan
    hardware: Hardware
    store: Store
    progress: Progress
    _artifacts: dict[str, BuiltArtifact | CellError] = field(default_factory=dict)
    _task_inputs: dict[str, Path | CellError] = field(default_factory=dict)

    def artifact(self, item: PlannedRound) -> BuiltArtifact:
        """CellError where it could not be made."""
        return _ready(self._artifacts[item.artifact.recipe.name])

    def draft(self, item: PlannedRound) -> BuiltArtifact | None:
        """None where nothing drafts; CellError where it could not be made."""
        return _ready(self._artifacts[item.draft.recipe.name]) if item.draft else None

    def task_input(self, item: PlannedRound) -> Path | None:
        """None where its task needs none; CellError where it could not be made."""
        return _ready(self._task_inputs[item.task_input.digest]) if item.task_input else None

    def stages(self, items: Sequence[PlannedRound]) -> list[Stage]:
        """What these rounds need and is not built yet: environments first, artifacts last, as others wait less then."""
        inputs = {i.task_input.digest: i.task_input for i in items if i.task_input}
        inputs = {digest: its for digest, its in inputs.items() if digest not in self._task_inputs}
        recipes = {i.artifact.recipe.name for i in items}
        recipes |= {r.artifact.recipe.name for r in inputs.values() if isinstance(r, Reference)}
        recipes |= {i.draft.recipe.name for i in items if i.draft}
        recipes -= self._artifacts.keys()
        planned = [a for a in self.plan.artifacts if a.recipe.name in recipes and a.hardware == self.hardware]
        tools = {i.env for i in items if i.mode in ("online", "served") and environment.has_tools(i.env)}
        envs = [i.env for i in sorted(items, key=lambda i: i.order)]
        envs += [env for artifact in planned if artifacts.find(artifact.digest) is None for env in _envs(artifact)]
        envs += [its.task_module.ENV for its in inputs.values() if isinstance(its, Requests)]
        return [
            *(self._environment(name) for name in dict.fromkeys(envs)),
            *(self._tools(name) for name in sorted(tools)),
            *(self._input_stage(digest, its) for digest, its in inputs.items()),
            *self._artifact_stages(planned),
        ]

    def build(self, wanted: PlannedArtifact | Reference | Requests) -> None:
        """Build one thing now, and what it needs; CellError where that fails, with the reason for its rounds."""
        inputs: list[Stage] = []
        if isinstance(wanted, PlannedArtifact):
            needed = [wanted]
        else:
            needed = [wanted.artifact] if isinstance(wanted, Reference) else []
            inputs = [self._input_stage(wanted.digest, wanted)]
        needed = [artifact for artifact in needed if artifact.recipe.name not in self._artifacts]
        envs = [env for artifact in needed if artifacts.find(artifact.digest) is None for env in _envs(artifact)]
        if not isinstance(wanted, PlannedArtifact):
            envs.append(wanted.env if isinstance(wanted, Reference) else wanted.task_module.ENV)
        built = [*map(self._environment, dict.fromkeys(envs)), *self._artifact_stages(needed), *inputs]
        stages.run_all(built, 1, self.progress)
        if isinstance(wanted, PlannedArtifact):
            _ready(self._artifacts[wanted.recipe.name])
        else:
            _ready(self._task_inputs[wanted.digest])

    def after(self, item: PlannedRound) -> tuple[tuple[str, str], ...]:
        """Keys of the stages that a round waits for."""
        digest = item.task_input.digest if item.task_input else ""
        return ("env", item.env), ("artifact", item.artifact.recipe.name), ("input", digest)

    @cached_property
    def needs_bytes(self) -> int:
        """Memory that a stage may take which loads the model."""
        resolved = self.plan.resolved
        parameters = formats.parameters(resolved.folder) if resolved.folder is not None else None
        count = parameters.linear + parameters.rest if parameters else 0
        return _GIB + _COPIES * _FLOAT_BYTES * count

    def _environment(self, name: str) -> Stage:
        return Stage(("env", name), lambda report, _: environment.ensure(name, report), _nothing, needs_bytes=_GIB)

    def _tools(self, name: str) -> Stage:
        key = ("tools", name)
        return Stage(
            key, lambda report, _: environment.tools(name, report), _nothing, (("env", name),), needs_bytes=_GIB
        )

    def _artifact_stages(self, planned: Sequence[PlannedArtifact]) -> list[Stage]:
        """One for each; of those that share steps the later ones come after the first."""
        stages: list[Stage] = []
        first: dict[str, str] = {}
        for artifact in planned:
            name = artifact.recipe.name
            shared = {
                first.setdefault(digest, name)
                for digest in artifacts.digests(artifact.resolved.identity, artifact.steps)[: len(artifact.steps)]
            } - {name}
            stages.append(
                Stage(
                    ("artifact", name),
                    partial(self._build_artifact, artifact),
                    partial(self._end_artifact, artifact),
                    (*(("env", env) for env in _envs(artifact)), *(("artifact", other) for other in sorted(shared))),
                    needs_bytes=self.needs_bytes,
                    on_device=bool(self.hardware.gpus),
                )
            )
        return stages

    def _build_artifact(
        self, planned: PlannedArtifact, report: Report, is_alone: Callable[[], bool]
    ) -> tuple[BuiltArtifact | CellError, Result]:
        """Make one artifact; its record too, or that of why it could not be made."""
        name, began = planned.recipe.name, time.monotonic()
        cell = Cell(
            planned.model, replace(planned.recipe, steps=planned.steps), EngineSpec(""), planned.hardware.device
        )
        record = Result(
            digest=planned.digest,
            suite=self.plan.suite.name,
            cell=records.public_cell(cell),
            round=0,
            status="ok",
            hardware=planned.hardware,
            started=records.now(),
        )
        try:
            built = artifacts.make(
                planned.steps,
                planned.resolved,
                planned.hardware,
                lambda text: report(f"{name}: {text.removeprefix(f'{name}: ')}"),
                is_alone,
                shapes=planned.linears,
            )
        except CellError as error:
            reason = paths.scrubbed(str(error))
            if supervisor.lacked_memory(reason) and not is_alone():
                raise TooLittleMemoryError from None
            failed = replace(record, status="failed", reason=reason, duration_s=time.monotonic() - began)
            return CellError(f"its artifact could not be made: {reason}"), failed
        facts = records.public_artifact(built.artifact)
        return built, replace(record, artifact=facts, duration_s=time.monotonic() - began)

    def _end_artifact(self, planned: PlannedArtifact, ended: tuple[BuiltArtifact | CellError, Result]) -> None:
        built, record = ended
        self._artifacts[planned.recipe.name] = built
        if isinstance(built, CellError):
            self.progress.warn(f"failed: {planned.recipe.name}: {record.reason}")
        existing = self.store.find(record) if record.status == "ok" else None
        if existing is None or existing.digest != record.digest or existing.status != "ok":
            self.store.put(record)

    def _input_stage(self, digest: str, task_input: Reference | Requests) -> Stage:
        if isinstance(task_input, Requests):
            after = [("env", task_input.task_module.ENV)]
        else:
            after = [("env", task_input.env), ("artifact", task_input.artifact.recipe.name)]
        return Stage(
            ("input", digest),
            partial(self._build_task_input, task_input),
            partial(self._end_task_input, digest, task_input),
            tuple(after),
            needs_bytes=self.needs_bytes,
            on_device=bool(self.hardware.gpus) and isinstance(task_input, Reference),
        )

    def _build_task_input(
        self, task_input: Reference | Requests, report: Report, is_alone: Callable[[], bool]
    ) -> Path | CellError:
        """The folder of the task's reference or requests, or why it could not be built."""
        suite = self.plan.suite
        try:
            if isinstance(task_input, Requests):
                return task_inputs.requests_folder(task_input, suite, report)
            its_source = source_of(task_input)
            built = _ready(self._artifacts[task_input.artifact.recipe.name])
            return task_inputs.reference_folder(task_input, built, suite, lambda text: report(f"{its_source}: {text}"))
        except CellError as error:
            reason = paths.scrubbed(str(error))
            if supervisor.lacked_memory(reason) and not is_alone():
                raise TooLittleMemoryError from None
            return CellError(reason)

    def _end_task_input(self, digest: str, task_input: Reference | Requests, built: Path | CellError) -> None:
        if isinstance(built, CellError):
            its_source = "" if isinstance(task_input, Requests) else source_of(task_input)
            title = f"{its_source}: {task_input.task.title}" if its_source else task_input.task.title
            self.progress.warn(f"failed: {title}: {built}")
            built = CellError(f"{blame(task_input)}{built}")
        self._task_inputs[digest] = built


def _ready(built: T | CellError) -> T:
    """Raise the error of a failed build, else return its result."""
    if isinstance(built, CellError):
        raise built
    return built


def _nothing(_: object) -> None:
    pass


def source_of(reference: Reference) -> str:
    """What makes a reference, for a person."""
    return f"{reference.artifact.recipe.name} on {reference.engine.title}"


def blame(task_input: Reference | Requests) -> str:
    """How the reason of a round begins whose task's input could not be made."""
    return "" if isinstance(task_input, Requests) else f"its reference ({source_of(task_input)}) could not be made: "


def _envs(artifact: PlannedArtifact) -> list[str]:
    return [plugins.step_env(step) for step in artifact.steps]
