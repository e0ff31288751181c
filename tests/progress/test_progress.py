"""A run as a person sees it: in a real pseudo-terminal, in a pipe, in CI; on the fake engine."""

from __future__ import annotations

import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from rich.cells import cell_len

from bench.progress.progress import Progress
from bench.progress.snapshot import RoundLabel
from bench.store import Store
from tests.conftest import ROOT, Command
from tests.run.fake_runs import suite_file

_SLOW = "[{name: fake, load_s: 1.2}]"
_TWO = "[{name: fake, load_s: 1.2}, {name: fake, label: dies, fail: exception}]"
_CELL = "demo/as-is/fake/offline-b1-p4-n4"
_HIDDEN, _SHOWN = "\x1b[?25l", "\x1b[?25h"
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(frozen=True)
class TerminalOutput:
    """What a terminal was sent, and the exit code of the command."""

    text: str
    code: int

    @property
    def live(self) -> list[str]:
        """The lines up to where the cursor was given back, without what moves it and colours them."""
        text = _CONTROL.sub("", self.text[: self.text.rindex(_SHOWN)])
        return [line for line in re.split(r"[\r\n]+", text) if line]


def _terminal(
    tmp_path: Path,
    *words: str,
    columns: int = 100,
    when: str = "",
    then: Callable[[subprocess.Popen[bytes]], None] = lambda _: None,
    variables: Mapping[str, str] = {},
) -> TerminalOutput:
    """Run `python -m bench WORDS...` in a pseudo-terminal; `then` is done once `when` was read."""
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
    plain = {k: v for k, v in os.environ.items() if k not in ("CI", "COLUMNS", "LINES", "NO_COLOR")}
    cache = {"LLM_BENCH_CACHE": str(tmp_path / "cache"), "TERM": "xterm-256color"}
    argv = [sys.executable, "-m", "bench", *words, "--results", str(tmp_path / "results")]
    got, until = b"", time.monotonic() + 60
    with subprocess.Popen(
        argv,
        cwd=ROOT,
        env={**plain, **cache, **variables},
        start_new_session=True,
        stdin=slave,
        stdout=slave,
        stderr=slave,
    ) as process:
        os.close(slave)
        waited = bool(when)
        while time.monotonic() < until:
            if select.select([master], [], [], 0.1)[0]:
                try:
                    got += os.read(master, 1 << 16)
                except OSError:  # Linux: the other side is closed
                    break
            if waited and when.encode() in got:
                waited = False
                then(process)
        process.kill()
        code = process.wait()
    os.close(master)
    return TerminalOutput(got.decode(), code)


def _lines(done: subprocess.CompletedProcess[str]) -> list[str]:
    return done.stderr.splitlines()


def test_the_live_view_shows_the_cell_the_round_and_the_totals(tmp_path: Path) -> None:
    """Drawn in place, with the figure of the round before, then cleared away; the result stands below."""
    began = time.monotonic()
    output = _terminal(tmp_path, "run", suite_file(tmp_path, _SLOW))
    passed_s = time.monotonic() - began

    assert output.code == 0
    assert f"{_CELL}, cpu, round 1 of 2" in output.live
    assert f"{_CELL}, cpu, round 2 of 2" in output.live
    assert [line for line in output.live if re.fullmatch(r"loading 0:0\d, round 0:0\d( of about 0:0\d)?", line)]
    assert [line for line in output.live if re.fullmatch(r"━{20}─{20} 1 of 2 rounds done", line)]
    assert [line for line in output.live if re.fullmatch(r"1 ok, 0:0\d so far, about 0:0\d left", line)]
    assert [line for line in output.live if re.fullmatch(rf"ok \d\.\d s  \d+ tok/s  {_CELL} round 1", line)]
    assert output.text.count(_SHOWN) >= output.text.count(_HIDDEN) == 1
    assert output.text.rindex(_SHOWN) < output.text.index("output tok/s")
    assert "Rounds: 2 ok; 0 recorded before" in output.text
    assert sum("so far" in line for line in output.live) <= passed_s + 2  # drawn once a second at most


def test_a_round_is_expected_to_take_what_recorded_ones_took(command: Command, tmp_path: Path) -> None:
    """From the first moment of the second run: the first round's record has its duration."""
    command("bench", "run", suite_file(tmp_path, _SLOW, rounds=1))
    output = _terminal(tmp_path, "run", suite_file(tmp_path, _SLOW, rounds=2))

    assert [line for line in output.live if re.fullmatch(r"loading 0:0\d, round 0:0\d of about 0:0[1-4]", line)]
    assert [line for line in output.live if re.fullmatch(r"1 recorded before, .*, about 0:0\d left", line)]


@pytest.mark.parametrize("columns", [80, 40])
def test_no_line_is_wrapped(tmp_path: Path, columns: int) -> None:
    """In a narrow terminal lines are cut or broken between words, a failure's sentence too."""
    output = _terminal(tmp_path, "run", suite_file(tmp_path, _TWO, rounds=1), columns=columns)

    assert max(map(cell_len, output.live)) <= columns
    assert [line for line in output.live if "of 2 rounds done" in line]
    message = " ".join(output.live)
    assert "RuntimeError: the fake engine was asked to raise" in re.sub(r"\s+", " ", message)


def test_a_terminal_that_gets_smaller_is_drawn_to_its_new_width(tmp_path: Path) -> None:
    """After a resize no line is wider than the terminal is now."""

    def shrink(process: subprocess.Popen[bytes]) -> None:
        with open(f"/proc/{process.pid}/fd/2", "wb") as terminal:  # noqa: PTH123
            fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 40, 0, 0))

    output = _terminal(tmp_path, "run", suite_file(tmp_path, _SLOW, rounds=3), when="loading", then=shrink)
    last = output.live[-4:]

    assert max(map(cell_len, last)) <= 40 < max(map(cell_len, output.live))
    assert output.code == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_gives_the_cursor_back(tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C and SIGTERM: the view is gone, the cursor is there, what is kept is said, the code is 130."""
    if signal.getsignal(number) == signal.SIG_IGN:
        pytest.skip("these tests were started where the signal is ignored, as behind nohup")
    output = _terminal(
        tmp_path, "run", suite_file(tmp_path, _SLOW), when="round 2 of 2", then=lambda p: p.send_signal(number)
    )

    assert output.code == 130
    assert output.text.rindex(_SHOWN) > output.text.rindex(_HIDDEN)
    assert "stopped; what is finished is kept (1 round), run the same command to go on" in output.text
    assert "Traceback" not in output.text


@pytest.mark.parametrize(("name", "value"), [("TERM", "dumb"), ("CI", "true")])
def test_a_terminal_that_cannot_be_drawn_in_gets_plain_lines(tmp_path: Path, name: str, value: str) -> None:
    """TERM=dumb, and CI, which may have a terminal that nobody watches."""
    output = _terminal(tmp_path, "run", suite_file(tmp_path, "[fake]", rounds=1), variables={name: value})

    assert "\x1b" not in output.text
    assert re.search(rf"\[1/1\] 0:0\d {_CELL} round 1 ok \d\.\d s, \d+ tok/s\r\n", output.text)


def test_without_colour_there_is_none(tmp_path: Path) -> None:
    """NO_COLOR: the view is drawn in bold and plain only."""
    engines = "[{name: fake, label: dies, load_s: 1.2, fail: exception}]"
    output = _terminal(tmp_path, "run", suite_file(tmp_path, engines, rounds=1), variables={"NO_COLOR": "1"})

    assert [line for line in output.live if "0 of 1 rounds done" in line]
    assert [line for line in output.live if "round 1 failed" in line]
    assert not re.search(r"\x1b\[(?:\d+;)*3\d", output.text)


def test_a_pipe_gets_a_line_for_each_round(command: Command, tmp_path: Path) -> None:
    """With the status, the time and the figure or the whole reason, and no control character."""
    done = command("bench", "run", suite_file(tmp_path, _TWO, rounds=1))
    rounds = [line for line in _lines(done) if line.startswith("[")]

    assert [line[:5] for line in rounds] == ["[1/2]", "[2/2]"]
    ok, failed = sorted(rounds, key=lambda line: "dies" in line)
    assert re.fullmatch(rf"\[\d/2\] 0:0\d {_CELL} round 1 ok \d\.\d s, \d+ tok/s", ok)
    assert re.search(r"round 1 failed \d\.\d s: RuntimeError: the fake engine was asked to raise$", failed)
    assert not [sign for sign in done.stderr if not sign.isprintable() and sign != "\n"]


def test_what_cannot_run_is_told_once(command: Command, tmp_path: Path) -> None:
    """The rounds of a cell have one reason; all of them are counted."""
    done = command("bench", "run", suite_file(tmp_path, "[{name: fake, only_batch: 3}]", rounds=3))

    (line,) = (line for line in _lines(done) if line.startswith("["))
    assert re.fullmatch(rf"\[1/3\] 0:0\d {_CELL} round 1 unsupported: the fake engine runs batch 3 only", line)
    assert "Rounds: 3 unsupported" in done.stderr


def test_quiet_leaves_the_table_and_what_failed(command: Command, tmp_path: Path) -> None:
    """Nothing on stderr where nothing went wrong; else the sentence and how to run it again."""
    fine = command("bench", "run", suite_file(tmp_path, "[fake]"), "--quiet")
    bad = command("bench", "run", suite_file(tmp_path, _TWO, rounds=1), "-q")

    assert fine.stderr == ""
    assert "output tok/s" in fine.stdout
    first, second = _lines(bad)
    assert first.endswith("RuntimeError: the fake engine was asked to raise")
    assert second.startswith("Failed rounds are kept as records")


def test_a_control_character_of_a_record_reaches_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """What comes from outside cannot move the cursor."""
    with Progress() as progress:
        progress.warn("failed: \x1b[2Jgone\x07\nforged line")

    assert capsys.readouterr().err == "failed:  [2Jgone  forged line\n"


def test_a_secret_reaches_no_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """In what went wrong and in what is being done."""
    monkeypatch.setenv("INDEX_PASSWORD", "correct horse")
    with Progress() as progress:
        progress.warn("failed: no such user: correct horse")
        progress.doing("environment hf: looking in https://me:correct@index/simple")

    stderr = capsys.readouterr().err
    assert "failed: no such user: <INDEX_PASSWORD>" in stderr
    assert "correct" not in stderr


def test_a_pipe_hears_of_each_subject_once(capsys: pytest.CaptureFixture[str]) -> None:
    """The details of what goes on are many, its subject is told when it changes."""
    with Progress() as progress:
        for text in ("environment hf: creating", "environment hf: Collecting torch", "nf4: bnb: making"):
            progress.doing(text)

    assert capsys.readouterr().err == "0:00 environment hf: creating\n0:00 nf4: bnb: making\n"


def test_threads_that_work_beside_each_other_are_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    """Each subject is told once in a pipe, though details of both come in turns; a silence is broken for both."""
    with Progress(silence_s=0.2) as progress, progress.activity() as first, progress.activity() as second:
        for detail in ("creating", "Collecting torch"):
            first(f"environment hf: {detail}")
            second(f"environment vllm: {detail}")
        assert len(capsys.readouterr().err.splitlines()) == 2
        time.sleep(0.3)
        lines = capsys.readouterr().err.splitlines()

    assert [line.split(" ", 1)[1] for line in lines[:2]] == [
        "environment hf: Collecting torch",
        "environment vllm: Collecting torch",
    ]


def test_silence_in_a_pipe_is_broken(capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever waits for a long step hears that it goes on."""
    with Progress(silence_s=0.2) as progress:
        progress.doing("scoring")
        time.sleep(0.5)

    drawn_lines = capsys.readouterr().err.splitlines()
    assert 2 <= len(drawn_lines) <= 3
    assert all(line.endswith(" scoring") for line in drawn_lines)


def test_a_silence_is_broken_with_the_step_at_hand(capsys: pytest.CaptureFixture[str]) -> None:
    """Steps are no new subject: a pipe hears the last of them, and how long it has gone on by then."""
    with Progress(silence_s=1.2) as progress:
        for layer in range(1, 13):
            progress.doing(f"gptq-w4g64: gptq: layer {layer} of 30 (q_proj), 6:{layer:02} left")
        time.sleep(1.6)

    lines = [line.split(" ", 1)[1] for line in capsys.readouterr().err.splitlines()]
    assert lines == [
        "gptq-w4g64: gptq: layer 1 of 30 (q_proj), 6:01 left",
        "gptq-w4g64: gptq: layer 12 of 30 (q_proj), 6:12 left, 0:01 so far",
    ]


def test_of_several_devices_each_line_names_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    """Two GPUs of one suite run cells of one title."""
    result = next(r for r in Store(ROOT / "results").all("*/*/serving/*") if r.status == "ok")
    rounds = [RoundLabel("m/nf4/hf/load", device, 1, 1) for device in ("cuda:0", "cuda:1")]
    with Progress(figure=lambda _: "63.1 tok/s") as progress:
        progress.begin(rounds, 0, [])
        for label in rounds:
            progress.start_round(label)
            progress.end_round(label, result)

    assert capsys.readouterr().err.splitlines() == [
        "[1/2] 0:00 m/nf4/hf/load on cuda:0 round 1 ok 0.0 s, 63.1 tok/s",
        "[2/2] 0:00 m/nf4/hf/load on cuda:1 round 1 ok 0.0 s, 63.1 tok/s",
    ]
