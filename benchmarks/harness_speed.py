"""How fast and how equal: lm-eval tasks scored here and by lm-eval's own HFLM, by turns in one process.

    HF_PYTHON -m benchmarks.harness_speed --lm-eval LM_EVAL_PYTHON --data FOLDER --tasks arc_easy_local,...

Both get the same requests, load the same weights in float32 on the same threads, and are timed from those
requests to their answers, tokenization included. HFLM runs at the batch size that was fastest for it on a part
of the task. Items that differ are those whose verdict does: the likeliest choice, the likeliest by length, or whether
a single continuation is greedy. Exit code 1 where a choice's log-probability differs by more than 1e-3 nats, or where
this suite is slower than it promises: half HFLM's time on ARC-easy, its time on any other task.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bench.engines import hf
from benchmarks import script
from eval.scoring import likelihood

_CONTEXT, _TOLERANCE = 1023, 1e-3
_TASKS = "stdlib_next_line,stdlib_argument,stdlib_docstring"
Answers = list[tuple[float, bool]]


def main() -> int:
    parser = script.parser(__doc__, limit=0, rounds=3, threads=2)
    parser.add_argument("--lm-eval", required=True, help="the lm_eval environment's Python")
    parser.add_argument("--data", default="", help="the folder with arc_easy.jsonl and the like, for tasks *_local")
    parser.add_argument("--model", type=Path, default=script.DEMO, help="a folder of Transformers")
    parser.add_argument("--tasks", default=_TASKS)
    parser.add_argument("--batches", type=lambda text: [int(n) for n in text.split(",")], default=[1, 4, 16, 64])
    given = parser.parse_args()
    site = script.run([given.lm_eval, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]).stdout.strip()
    sys.path.append(site)  # behind this environment's own packages
    import torch
    from lm_eval.models.huggingface import HFLM

    torch.set_num_threads(given.threads)
    theirs = HFLM(pretrained=str(given.model), dtype="float32", device="cpu", max_length=_CONTEXT, batch_size=1)
    with hf.open(given.model, script.artifact("hf"), hf.Options(dtype="float32"), "cpu") as session:
        print(f"HF Transformers on {given.threads} threads, float32; seconds from requests to answers\n")
        print(
            f"{'task':<20} {'requests':>8} {'HFLM s':>16} {'at batch':>8} {'here s':>16} {'times':>6} "
            f"{'most nats':>9} {'items':>6} {'differ':>6}"
        )
        return max([_task(name, session, theirs, given) for name in given.tasks.split(",")])


def _task(name: str, session: Any, theirs: Any, given: argparse.Namespace) -> int:
    requests = _requests(name, given)
    part = requests[: max(1, len(requests) // 8)]
    sizes = {size: _timed(partial(_hflm, theirs, part, size))[0] for size in given.batches}
    best = min(sizes, key=sizes.__getitem__)
    ways = [partial(_hflm, theirs, requests, best), partial(_here, session, theirs.tokenizer, requests)]
    ways[1]()  # neither is measured on its first call
    times: list[list[float]] = [[], []]
    answers: dict[int, Answers] = {}
    for number in range(given.rounds):
        for way in (0, 1) if number % 2 == 0 else (1, 0):
            seconds, answers[way] = _timed(ways[way])
            times[way].append(seconds)
    other, mine = answers[0], answers[1]
    ratio = statistics.median(a / b for a, b in zip(*times, strict=True))
    most = max(abs(a[0] - b[0]) for a, b in zip(mine, other, strict=True))
    differ = _differing(requests, mine, other)
    columns = [f"{statistics.median(t):.1f} ({min(t):.1f}-{max(t):.1f})" for t in times]
    print(
        f"{name:<20} {len(requests):>8} {columns[0]:>16} {best:>8} {columns[1]:>16} {ratio:>6.2f} "
        f"{most:>9.1e} {len({r.doc_id for r in requests}):>6} {differ:>6}",
        flush=True,
    )
    return int(most > _TOLERANCE or ratio < (2.0 if name.startswith("arc_easy") else 1.0))


def _hflm(theirs: Any, requests: Sequence[Any], batch: int) -> Answers:
    theirs.batch_size_per_gpu = batch
    return list(theirs.loglikelihood(requests, disable_tqdm=True))


def _here(session: Any, tokenizer: Any, requests: Sequence[Any]) -> Answers:
    from eval.lm_eval.token_model import TokenLM

    model = TokenLM(tokenizer, _CONTEXT, None)
    model.loglikelihood(requests, disable_tqdm=True)
    questions, pairs = likelihood.grouped(model.requests.pairs)
    scores = likelihood.scores(session, questions)
    return [scores[question][choice] for question, choice in pairs]


def _requests(name: str, given: argparse.Namespace) -> list[Any]:
    from lm_eval.tasks import TaskManager

    manager = TaskManager(
        include_path=str(script.ROOT / "configs/tasks"), include_defaults=False, metadata={"data": given.data}
    )
    task = manager.load([name])["tasks"][name]
    task.set_config(key="num_fewshot", value=0)
    task.build_all_requests(limit=given.limit or None, rank=0, world_size=1)
    return list(task.instances)


def _differing(requests: Sequence[Any], mine: Answers, other: Answers) -> int:
    """Items that come out otherwise."""
    by_item: dict[int, list[int]] = {}
    for k, request in enumerate(requests):
        by_item.setdefault(request.doc_id, []).append(k)
    return sum(_verdict(its, requests, mine) != _verdict(its, requests, other) for its in by_item.values())


def _verdict(item: Sequence[int], requests: Sequence[Any], answers: Answers) -> tuple[int, ...]:
    """Of an item's requests, by their positions: the choices of acc and acc_norm, or whether the one is greedy."""
    if len(item) == 1:
        return (int(answers[item[0]][1]),)
    # lm-eval's length is that of the choice without the space before it.
    lengths = {k: len(requests[k].args[1]) - 1 for k in item}
    return max(item, key=lambda k: answers[k][0]), max(item, key=lambda k: answers[k][0] / lengths[k])


def _timed(work: Callable[[], Answers]) -> tuple[float, Answers]:
    began = time.perf_counter()
    answers = work()
    return time.perf_counter() - began, answers


if __name__ == "__main__":
    sys.exit(main())
