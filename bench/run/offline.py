"""One offline or score round: a worker in the engine's environment, with the device's energy counted."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path

from bench import paths
from bench.contract.job import Job
from bench.contract.spec import Suite
from bench.contract.workload import Offline
from bench.envs.environment import Environment
from bench.load import prompts
from bench.machine import counters, probes
from bench.process import supervisor
from bench.run import artifacts, energy_window, speculation, text_prompts
from bench.run.artifacts import BuiltArtifact
from bench.run.planned import PlannedRound
from bench.run.text_prompts import DrawnPrompts


def run(
    item: PlannedRound,
    built: BuiltArtifact,
    task_input: Path | None,
    env: Environment,
    suite: Suite,
    *,
    report: Callable[[str], None] = lambda _: None,
    open_reader: counters.OpenReader = counters.reader,
) -> supervisor.Outcome:
    """Run the worker; an offline round on a device that counts its energy gets an energy window at its end.

    Probe samples from that window on count in no other fact than `probe_cpu_s`.
    """
    report("starting")
    drawn = text_prompts.of_round(item, suite.seed, report)
    job = _job(item, built, task_input, suite.seed, drawn)
    job = replace(job, keep_answers=drawn is not None and speculation.keeps_answers(suite, item.round))
    # Not at a depth: an engine may fill its cache again for each batch, and that energy is not the batch's.
    counted = item.mode == "offline" and suite.energy_window_s > 0 and not job.contexts
    idle = energy_window.idle_facts(job.device, open_reader, report) if counted else {}
    outcome = supervisor.run(
        replace(job, energy_window_s=suite.energy_window_s if idle else 0.0),
        env,
        timeout_s=suite.timeout_s,
        memory_limit_bytes=suite.memory_limit_bytes,
        report=report,
        open_reader=open_reader,
    )
    if job.work and not outcome.answer.error:
        shutil.rmtree(job.work, ignore_errors=True)
    if drawn is not None:
        facts = {**outcome.answer.facts, **drawn.facts}
        outcome = replace(outcome, answer=replace(outcome.answer, facts=facts))
    if "energy_window" not in outcome.answer.facts:
        return outcome
    start_s, samples = outcome.answer.facts["energy_window"]["start_s"], outcome.probe.samples
    first = next((i for i, s in enumerate(samples) if s.time_s >= start_s), None)
    observed = probes.observe(samples[: None if first is None else first + 1], outcome.probe.cpu_s)
    facts = energy_window.with_window(outcome.answer.facts, idle, outcome.probe)
    return replace(outcome, answer=replace(outcome.answer, facts=facts), observed=observed)


def _of_texts(job: Job, load: Offline, drawn: DrawnPrompts) -> Job:
    """The job of a load with a file of prompts, the first of which are measured."""
    prompts = list(islice(cycle(drawn.prompts), load.repeats + text_prompts.WARMUP_GROUPS))
    ordered = [*prompts[load.repeats :], *prompts[: load.repeats]]
    return replace(
        job,
        prompts=tuple(prompt.ids for prompt in ordered),
        texts=tuple((prompt.id, prompt.category) for prompt in ordered),
        end_tokens=drawn.end_tokens,
    )


def _job(
    item: PlannedRound, built: BuiltArtifact, task_input: Path | None, seed: int, drawn: DrawnPrompts | None
) -> Job:
    cell = item.cell
    job = Job(
        kind="score",
        plugin=cell.engine.name,
        folder=str(built.folder),
        device=cell.device,
        options=artifacts.absolute(cell.engine.options),
        artifact=built.artifact,
        reference=str(task_input or ""),
    )
    if cell.task is not None:
        work = paths.cache() / "work" / item.digest
        return replace(job, task=cell.task.kind, task_options=artifacts.absolute(cell.task.options), work=str(work))
    if not isinstance(load := cell.workload, Offline):
        return job
    if drawn is not None:
        return _of_texts(replace(job, kind="offline", workload=load), load, drawn)
    prompt_tokens = [load.prompt_tokens] * ((text_prompts.WARMUP_GROUPS + load.repeats) * load.batch)
    prompt_seed = f"{seed}/{load.title}/{item.round}"
    vocab_size = built.artifact.audit.vocab_size
    ids = prompts.of_lengths(prompt_tokens, vocab_size, prompt_seed)
    contexts = [load.depth_tokens] * load.batch if load.depth_tokens else []
    return replace(
        job,
        kind="offline",
        workload=load,
        prompts=ids,
        contexts=prompts.of_lengths(contexts, vocab_size, f"{prompt_seed}/contexts"),
    )
