"""GPTQ and AWQ of a model by this suite and by the same library called bare, by turns: minutes, memory, their ratio.

    python -m benchmarks.library_speed --model FOLDER --methods gptq,awq --pairs 3 --samples 32

Both are processes of the hf environment with its variables, timed from their start to their end; they quantize the
same folder by the same settings over the same token ids, in float32. What the suite does besides is within its
time: it draws the calibration text, measures how far outputs moved, tells its steps, and completes the folder. Without
the suite GPTQModel packs no AWQ in float32 until its packer's list of types names it, so the bare call adds that type
and nothing else: its scales are then wrong on a CPU (see quantize/methods/awq.py), and take it no longer to find. Peaks
are each process's own mark of resident memory. Exit code 1 where the suite is slower by more than 3 % in the median.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bench.contract import plugins
from bench.contract.job import Job
from bench.envs import environment
from bench.envs.environment import Environment
from bench.process import supervisor
from benchmarks import script

_LEAST_RATIO = 0.97
_MIB = 2**20
_IDS = """
import json, sys
from pathlib import Path
from bench.contract import plugins
from quantize import calibration
options = plugins.load(plugins.METHODS, sys.argv[1]).Options(**json.loads(sys.argv[2]))
Path(sys.argv[4]).write_text(json.dumps(calibration.from_options(Path(sys.argv[3]), options).encodings()))
"""
_BARE = """
import json, resource, sys, time
from pathlib import Path
import torch
from gptqmodel import BACKEND, GPTQModel
from gptqmodel.nn_modules.qlinear.torch_awq import AwqTorchLinear
from gptqmodel.quantization.config import AWQConfig, GPTQConfig
name, settings, folder, ids, out, batch_size = sys.argv[1:]
AwqTorchLinear.SUPPORTS_DTYPES = [*AwqTorchLinear.SUPPORTS_DTYPES, torch.float32]
torch.manual_seed(0)
config = {"gptq": GPTQConfig, "awq": AWQConfig}[name](**json.loads(settings), offload_to_disk=False, device="cpu")
model = GPTQModel.load(folder, config, dtype=torch.float32, trust_remote_code=False)
began = time.perf_counter()
model.quantize(
    json.loads(Path(ids).read_text()), batch_size=int(batch_size), calibration_sort=None,
    backend=BACKEND[f"{name.upper()}_TORCH"],
)
quantize_s = time.perf_counter() - began
model.save(out)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print("RESULT" + json.dumps({"quantize_s": quantize_s, "peak_bytes": peak}))
"""


@dataclass(frozen=True)
class Run:
    """One quantization: the whole process and its processor time, the library's call alone, the process's peak memory.

    `cpu_s` says most on a machine with other work, where the rest of the times are of that work too.
    """

    whole_s: float
    cpu_s: float
    quantize_s: float
    peak_bytes: int


def main() -> int:
    parser = script.parser(__doc__, pairs=3, samples=32, length=512, group_size=32)
    parser.add_argument("--model", type=Path, default=script.DEMO, help="a folder of Transformers")
    parser.add_argument("--methods", default="gptq,awq")
    given = parser.parse_args()
    env = environment.ensure("hf", lambda text: print(text, file=sys.stderr))
    options = {"samples": given.samples, "length": given.length, "group_size": given.group_size}
    print(f"{given.model.name}, {given.samples} samples of {given.length} tokens, groups of {given.group_size}\n")
    return max([_method(name, env, given.model.resolve(), options, given.pairs) for name in given.methods.split(",")])


def _method(name: str, env: Environment, model: Path, options: dict[str, Any], pairs: int) -> int:
    runs: dict[str, list[Run]] = {"suite": [], "bare": []}
    with tempfile.TemporaryDirectory() as home:
        ids = Path(home) / "ids.json"
        script.run([env.python, "-c", _IDS, name, json.dumps(options), str(model), str(ids)], env=_variables(env))
        for pair in range(pairs):
            for who in ("suite", "bare") if pair % 2 == 0 else ("bare", "suite"):
                load, cpu_s = os.getloadavg()[0], _cpu_s()
                with tempfile.TemporaryDirectory(dir=home) as out:
                    if who == "suite":
                        run = _suite(name, env, model, options, Path(out))
                    else:
                        run = _bare(name, env, model, options, ids, Path(out))
                run = replace(run, cpu_s=_cpu_s() - cpu_s)
                runs[who].append(run)
                print(f"{name} pair {pair + 1} {who:<5} {_shown(run)}, load {load:.1f} before", flush=True)
    ratios = {
        part: [getattr(b, part) / getattr(s, part) for s, b in zip(runs["suite"], runs["bare"], strict=True)]
        for part in ("whole_s", "cpu_s", "quantize_s", "peak_bytes")
    }
    print(f"{name}: the suite {_shown(_median(runs['suite']))}; bare {_shown(_median(runs['bare']))}")
    print(f"{name}: bare / suite: {', '.join(f'{part} {_spread(values)}' for part, values in ratios.items())}")
    print(json.dumps({who: [asdict(run) for run in of] for who, of in runs.items()}))
    return int(statistics.median(ratios["whole_s"]) < _LEAST_RATIO)


def _suite(name: str, env: Environment, model: Path, options: dict[str, Any], out: Path) -> Run:
    """As `bench run` has it made: a worker that is followed."""
    work = out / "work"
    work.mkdir()
    (out / "model").mkdir()
    settings = asdict(plugins.load(plugins.METHODS, name).Options(**options))
    job = Job("compress", name, str(model), "cpu", settings, out=str(out / "model"), work=str(work))
    began = time.perf_counter()
    outcome = supervisor.succeeded(supervisor.run(job, env, timeout_s=86_400))
    facts = outcome.answer.facts
    return Run(time.perf_counter() - began, 0.0, facts["quantize_s"], facts["worker_hwm_bytes"])


def _bare(name: str, env: Environment, model: Path, options: dict[str, Any], ids: Path, out: Path) -> Run:
    method = plugins.load(plugins.METHODS, name).Options(**options)
    settings = {"bits": method.bits, "group_size": method.group_size, "sym": method.symmetric}
    if name == "gptq":
        settings |= {"desc_act": False, "act_group_aware": False, "damp_percent": method.damp_percent}
    words = [name, json.dumps(settings), str(model), str(ids), str(out), str(method.batch_size)]
    began = time.perf_counter()
    done = script.run([env.python, "-c", _BARE, *words], folder=out, env=_variables(env))
    whole_s = time.perf_counter() - began
    told = json.loads(done.stdout.partition("RESULT")[2].splitlines()[0])
    return Run(whole_s, 0.0, told["quantize_s"], told["peak_bytes"])


def _variables(env: Environment) -> dict[str, str]:
    return {**supervisor.variables(env, "cpu"), "GPTQMODEL_DISABLE_PACK_EXT": "1"}  # its build takes half a minute


def _median(runs: Sequence[Run]) -> Run:
    """Each figure's own."""
    columns = [statistics.median(column) for column in zip(*(asdict(run).values() for run in runs), strict=True)]
    return Run(columns[0], columns[1], columns[2], int(columns[3]))


def _shown(run: Run) -> str:
    times = f"{run.whole_s / 60:.2f} min ({run.quantize_s / 60:.2f} in the library), {run.cpu_s / 60:.2f} of processors"
    return f"{times}, {run.peak_bytes / _MIB:,.0f} MiB"


def _cpu_s() -> float:
    """Of all programs that this one has started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _spread(ratios: Sequence[float]) -> str:
    return f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"


if __name__ == "__main__":
    sys.exit(main())
