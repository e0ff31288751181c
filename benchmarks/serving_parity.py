"""The load client against `vllm bench serve` and guidellm, on one llama-server, with the same prompts.

guidellm needs an environment of its own (this was written for 0.8.1):

    python3.11 -m venv DIR && DIR/bin/pip install torch==2.13.0 guidellm==0.8.1
    .venv/bin/python -m benchmarks.serving_parity --guidellm DIR/bin/guidellm

Run it from the repository's root, once `python -m bench envs build llamacpp --tools` and `... build vllm` are
done, on a quiet machine with at least a core more than `--threads`. `--guidellm ''` leaves guidellm out.

One server for all: the engine's own `serve`, no prompt cache. In each round, at each concurrency, the clients
take turns in rotating order, each a process of its own with the same texts (--prompt tokens each): a closed
loop, greedy, EOS ignored, a connection for each request. A turn's first 2 x concurrency enter no latency.

Definitions, aligned. TTFT: first token - sent. TPOT, which guidellm calls ITL: (last token - first) /
(tokens - 1). Both are medians over requests. Output tok/s: all tokens of the turn / (last token - first
sent), ramp-up and drain included. Idle: the mean time between a stream's last token and its next request. The
third table has each tool's figures as it prints them (our tok/s: of the window, without ramp-up and drain).

The server's own log of the same requests is the reference: the second table has what a client and the way to
it add. With more than one in flight a request first waits, unlogged, for the batch under way: there the log
cannot judge TTFT, and a difference stands as `differs`, without a verdict.

Verdicts: within noise, where two clients' ranges over rounds overlap, or where the ratio of their medians is off 1 by
at most twice the larger coefficient of variation. Else `both right`, where each TPOT or tok/s is within 1 % of the
server's of its own requests: what differs is the service. Else the server agrees with the nearer one.

Exit code 1: where the server agrees with another client; where our TPOT or tok/s is more than 2 % off the
server's, or our TTFT at one in flight more than 2 ms; where the server or we count other tokens than were
requested. The last line of the output is the result as JSON.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from tokenizers import Tokenizer

from bench.contract import plugins
from bench.contract.spec import Model
from bench.machine import hardware as machine
from bench.measure import stats
from bench.models import resolve
from bench.process import server as serving
from bench.process.server import Live
from bench.run import artifacts
from bench.suite import config
from benchmarks import script
from benchmarks.serving_clients import Load, RequestTiming, Turn, engine_environment, guidellm, ours, vllm
from eval import corpora

_METRICS = {"ttft_ms": "TTFT, ms", "tpot_ms": "TPOT, ms", "tok_per_s": "output tok/s"}
_LIMIT, _TTFT_LIMIT_MS, _RIGHT = 0.02, 2.0, 0.01
_LINE = re.compile(
    r"^(\d+)\.(\d+)\.(\d+)\.(\d+) I slot +(?:launch_slot_|print_timing): id +\d+ \| task (\d+) \| +"
    r"(processing|(?:prompt )?eval time = +([\d.]+) ms / +(\d+) tokens)",
    re.MULTILINE,
)


def main() -> None:
    parser = script.parser(__doc__, rounds=5, requests=120, prompt=128, new=64)
    parser.add_argument("--guidellm", required=True, help="path of its program, or ''")
    parser.add_argument("--model", type=Path, default=script.DEMO)
    parser.add_argument("--recipe", default="gguf-q4_k_m")
    parser.add_argument("--threads", type=int, default=1, help="of the server; the clients need a core too")
    parser.add_argument("--concurrency", type=int, nargs="*", default=[1, 4])
    arguments = parser.parse_args()
    clients: dict[str, Callable[[Load], Turn]] = {"ours": ours, "vllm bench": vllm}
    if arguments.guidellm:
        clients["guidellm"] = partial(guidellm, program=str(Path(arguments.guidellm).absolute()))
    rounds = list(_rounds(clients, arguments))
    print(f"\nload average {os.getloadavg()[0]:.1f}\n")
    wrong = [line for c in arguments.concurrency for line in report(c, [r[c] for r in rounds], list(clients))]
    print("\n".join(["", *wrong]) if wrong else "\nno verdict against our client")
    print(json.dumps({"rounds": rounds, "wrong": wrong}))
    sys.exit(bool(wrong))


def _rounds(
    clients: Mapping[str, Callable[[Load], Turn]], arguments: argparse.Namespace
) -> Iterator[dict[int, dict[str, Any]]]:
    """Of each round, by concurrency, by client: its figures and the server's."""
    engine, env = plugins.load(plugins.ENGINES, "llamacpp"), engine_environment("llamacpp")
    hardware = machine.detect("cpu")
    resolved = resolve.resolve(Model(str(arguments.model)), fetch=False)
    steps = artifacts.steps_for(config.recipe_named(arguments.recipe), hardware, resolved.format)
    artifact = artifacts.make(steps, resolved, hardware, print)
    tokenizer, corpus = Tokenizer.from_file(str(arguments.model / "tokenizer.json")), corpora.load("stdlib").text
    options, port = engine.Options(threads=arguments.threads), serving.free_port()
    server = engine.serve(artifact.folder, artifact.artifact, options, env.python, port, "cpu")
    with serving.running(server, port, env, "cpu") as live:
        log = _Log(live)
        for number in range(-1, arguments.rounds):
            figures: dict[int, dict[str, Any]] = {}
            for concurrency in arguments.concurrency:
                count = arguments.requests + 2 * concurrency
                texts = list(_texts(tokenizer, corpus, arguments.prompt, count, f"{number}/{concurrency}"))
                model, lengths = (server.model, arguments.model.resolve()), (arguments.prompt, arguments.new)
                load = Load(live.url, *model, texts, *lengths, concurrency)
                names = list(clients) if number >= 0 else ["ours"]  # which warms the server up
                turn, figures[concurrency] = number % len(names), {}
                for name in names[turn:] + names[:turn]:
                    figures[concurrency][name] = one = _figures(clients[name](load), log.new(), load)
                    columns = (f"{one['aligned'][m]:.4g} (server {one['server'][m]:.4g})" for m in _METRICS)
                    print(f"round {number}, {concurrency} in flight, {name}:", *columns, flush=True)
            if number >= 0:
                yield figures


def _texts(tokenizer: Tokenizer, corpus: str, length: int, count: int, seed: str) -> Iterator[str]:
    """Excerpts of the corpus that are `length` tokens, the beginning-of-text token included."""
    source = random.Random(seed)  # noqa: S311  (reproducible, not secret)
    while count:
        start = source.randrange(len(corpus) - 16 * length)
        ids = tokenizer.encode(corpus[start : start + 16 * length]).ids
        text = tokenizer.decode(ids[1:length]).strip()
        if len(tokenizer.encode(text).ids) == length:
            count -= 1
            yield text


class _Log:
    """The server's log, read a turn at a time."""

    def __init__(self, live: Live) -> None:
        self.live, self.last = live, -1

    def new(self) -> list[RequestTiming]:
        """The requests that were served since the last call, in the order in which they were taken up."""
        time.sleep(0.3)  # its last lines are on their way
        tasks: dict[int, dict[str, tuple[float, float, int]]] = {}
        for line in _LINE.finditer(self.live.log_text):
            minute, second, milli, micro, task, what, spent_ms, tokens = line.groups()
            now_s = 60 * int(minute) + int(second) + int(milli) / 1e3 + int(micro) / 1e6
            if int(task) > self.last:
                of = tasks.setdefault(int(task), {})
                of[what[:6]] = (now_s, float(spent_ms or 0) / 1e3, int(tokens or 0))
        self.last = max(tasks, default=self.last)
        requests = []
        for _, of in sorted(tasks.items()):
            (sent_s, _, _), (_, _, prompt), (end_s, eval_s, tokens) = of["proces"], of["prompt"], of["eval t"]
            requests.append(RequestTiming(sent_s, end_s - eval_s - sent_s, end_s, prompt, tokens))
        return requests


def _figures(turn: Turn, truth: Sequence[RequestTiming], load: Load) -> dict[str, Any]:
    """A turn's figures; `off` the server's of the same requests is in ms for TTFT, else a fraction of it."""
    if len(truth) != len(load.texts):
        sys.exit(f"the server's log has {len(truth)} requests of {len(load.texts)}")
    aligned, server = _aligned(sorted(turn.requests, key=lambda r: r.sent_s), load), _aligned(truth, load)
    off = {m: aligned[m] - server[m] if m == "ttft_ms" else aligned[m] / server[m] - 1 for m in _METRICS}
    counts = {}
    for who, requests in (("", turn.requests), ("server's ", truth)):
        counts[f"{who}prompt tokens"] = sorted({r.prompt_tokens for r in requests})
        counts[f"{who}tokens"] = sorted({r.tokens for r in requests})
    requested = {"prompt tokens": load.prompt_tokens, "tokens": load.new_tokens}
    figures = {"aligned": aligned, "server": server, "off": off, "counts": counts, "asked": requested}
    return {**figures, "printed": dict(zip(_METRICS, turn.printed, strict=True))}


def _aligned(requests: Sequence[RequestTiming], load: Load) -> dict[str, float]:
    counted = requests[2 * load.concurrency :]
    spent_s = max(r.last_s for r in requests) - requests[0].sent_s
    busy_s = sum(r.last_s - r.sent_s for r in requests)
    gaps = load.new_tokens - 1
    return {
        "ttft_ms": 1e3 * median(r.ttft_s for r in counted),
        "tpot_ms": 1e3 * median((r.last_s - r.sent_s - r.ttft_s) / gaps for r in counted),
        "tok_per_s": len(requests) * load.new_tokens / spent_s,
        "idle_ms": 1e3 * (load.concurrency * spent_s - busy_s) / len(requests),
    }


def report(streams: int, rounds: Sequence[Mapping[str, Any]], clients: Sequence[str]) -> list[str]:
    """Print the tables of one concurrency; returns the verdicts against our client, a sentence each."""

    def spreads(part: str, metric: str) -> list[stats.Spread]:
        return [stats.spread([r[name][part][metric] for r in rounds]) for name in clients]

    wrong: list[str] = []
    table = [[f"{streams} in flight", *clients, *(f"ours / {name}" for name in clients[1:])]]
    added = [[f"{streams} in flight, less the server's", *clients]]
    printed = [[f"{streams} in flight, as printed", *clients]]
    for metric, title in _METRICS.items():
        values, off = spreads("aligned", metric), spreads("off", metric)
        pairs = zip(values[1:], off[1:], strict=True)
        verdicts = [_verdict(metric, streams, (values[0], v), (off[0].median, o.median)) for v, o in pairs]
        table.append([title, *(_format(v, "{:.4g}") for v in values), *verdicts])
        added.append([title, *(_format(o, "{:+.3f}" if metric == "ttft_ms" else "{:+.2%}") for o in off)])
        printed.append([title, *(_format(v, "{:.4g}") for v in spreads("printed", metric))])
        wrong += [f"{title} at {streams}: {v}" for v in verdicts if v.endswith("theirs")]
        limit = _LIMIT if metric != "ttft_ms" else _TTFT_LIMIT_MS if streams == 1 else math.inf
        if abs(off[0].median) > limit:
            wrong.append(f"{title} at {streams}: ours is {added[-1][1]} off the server's")
    idle = [_format(v, "{:.3f}") for v in spreads("aligned", "idle_ms")]
    table.append(["idle, ms", *idle, *([""] * (len(clients) - 1))])
    for kind, requested in rounds[0]["ours"]["asked"].items():
        for who in ("", "server's "):
            counts = [sorted({n for r in rounds for n in r[name]["counts"][who + kind]}) for name in clients]
            printed.append([who + kind, *(" to ".join(map(str, sorted({n[0], n[-1]}))) for n in counts)])
            if any(numbers != [requested] for numbers in (counts if who else counts[:1])):
                wrong.append(f"{who}{kind} at {streams}: {counts}")
    for rows in (table, added, printed):
        lines = (rows[0], ["---"] * len(rows[0]), *rows[1:])
        print("\n".join("| " + " | ".join(row) + " |" for row in lines), end="\n\n")
    return wrong


def _verdict(metric: str, streams: int, pair: Sequence[stats.Spread], off: tuple[float, float]) -> str:
    (ours, theirs), ratio = pair, pair[0].median / pair[1].median
    overlap = ours.low <= theirs.high and theirs.low <= ours.high
    if overlap or abs(ratio - 1) <= 2 * max(ours.cv, theirs.cv):
        return f"{ratio:.3f}, within noise"
    if metric == "ttft_ms" and streams > 1:
        return f"{ratio:.3f}, differs"
    if metric != "ttft_ms" and max(map(abs, off)) <= _RIGHT:
        return f"{ratio:.3f}, both right"
    nearer = "ours" if abs(off[0]) <= abs(off[1]) else "theirs"
    return f"{ratio:.3f}, differs: the server agrees with {nearer}"


def _format(values: stats.Spread, form: str) -> str:
    return f"{form.format(values.median)} ({form.format(values.low)} to {form.format(values.high)})"


if __name__ == "__main__":
    main()
