"""Start of a worker, which dies with its parent: `python -m bench.process.worker_main job.json`.

The answer file is written atomically; stdout and stderr are only a log.
"""

from __future__ import annotations

import ctypes
import errno
import json
import shutil
import signal
import sys
import traceback
from dataclasses import replace
from pathlib import Path

from bench.contract import wire
from bench.contract.errors import UserError
from bench.contract.job import Answer, Job
from bench.process import worker

_PR_SET_PDEATHSIG = 1


def main(job_file: str) -> int:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    job = wire.build(Job, json.loads(Path(job_file).read_text()))
    try:
        answer = worker.JOBS[job.kind](job)
        answer = replace(answer, facts={**worker.own_peak(), **answer.facts})
    except UserError as error:
        answer = Answer(error=str(error))
    except MemoryError:
        answer = Answer(error="out of memory: the machine has less than this cell needs; use a smaller model or batch")
    except Exception as error:  # noqa: BLE001  (an engine may raise anything; the log keeps the traceback)
        traceback.print_exc()
        answer = Answer(error=_one_line(error))
    if answer.error and job.out:
        shutil.rmtree(job.out, ignore_errors=True)  # half an artifact, in the way of the answer on a full disk
    wire.write(Path(job.answer), wire.dumps(answer))
    return 1 if answer.error else 0


def _one_line(error: Exception) -> str:
    """An engine's exception as one sentence: its class and the first line of its message."""
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"no space left on the disk for {error.filename or 'a file'}; free some or move LLM_BENCH_CACHE"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300] if lines else 'no message'}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
