"""The life of a server: healthy, dead, hung, and gone with all its children."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil
import pytest

from bench import paths
from bench.contract.errors import CellError
from bench.contract.server import Server
from bench.envs import environment
from bench.process import bound, server
from bench.run import doctor

# A server that answers /health after `wait` seconds, has a child, and can be told to die.
_SCRIPT = """
import http.server, os, subprocess, sys, time
port, wait, how = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
print("loading the model", flush=True)
if how == "code":
    cache = os.path.join(os.environ["HF_MODULES_CACHE"], "transformers_modules")
    assert os.path.isfile(cache) and os.path.dirname(os.path.dirname(cache)) == os.getcwd()
    print("Please pass the argument `trust_remote_code=True`", "Good bye", sep="\\n", flush=True)
    sys.exit(1)
if how == "dies":
    print("cannot load: no such weights", flush=True)
    sys.exit(3)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
born = time.monotonic()
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/quit":
            os._exit(5)
        good = self.path == "/health" and how != "sick" and time.monotonic() - born > wait
        self.send_response(200 if good else 503)
        self.end_headers()
        self.wfile.write(str(child.pid).encode())
    def log_message(self, *words):
        pass
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


def _server(port: int, wait_s: float = 0.0, how: str = "well") -> Server:
    return Server((sys.executable, "-c", _SCRIPT, str(port), str(wait_s), how), "demo", {"MINE": "1"})


def _core() -> environment.Environment:
    return environment.ensure("core", print)


@pytest.mark.usefixtures("cache")
def test_a_server_is_waited_for_and_ended_with_its_children() -> None:
    """Healthy after its load, and nothing of it is left afterwards."""
    port = server.free_port()
    with server.running(_server(port, wait_s=0.5), port, _core(), "cpu") as live:
        child = int(urllib.request.urlopen(f"http://127.0.0.1:{port}/health").read())
        assert psutil.pid_exists(child)
        assert live.ready_s > 0.5
        assert live.ended == ""
        assert server.orphans() == []

    assert not psutil.pid_exists(live.pid)
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE
    assert not list(paths.cache_folder("servers").glob("*.json"))
    assert "loading the model" in (paths.cache_folder("logs") / "last-server.log").read_text()


@pytest.mark.usefixtures("cache")
def test_a_server_that_dies_while_it_starts_is_not_waited_for() -> None:
    """The reason has its code and the last line of its log, at once."""
    began, port = time.monotonic(), server.free_port()
    with (
        pytest.raises(CellError, match=r"\(code 3\) before .* cannot load: no such weights"),
        server.running(_server(port, how="dies"), port, _core(), "cpu"),
    ):
        pass
    assert time.monotonic() - began < 5


@pytest.mark.usefixtures("cache")
def test_a_server_that_never_gets_healthy_is_given_up() -> None:
    """After the time allowed, and it is ended."""
    port = server.free_port()
    with (
        pytest.raises(CellError, match=r"was not healthy in time; last line .* loading the model"),
        server.running(_server(port, how="sick"), port, _core(), "cpu", timeout_s=1.0),
    ):
        pass
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2)


@pytest.mark.usefixtures("cache")
def test_a_server_cannot_import_what_a_model_brings(tmp_path: Path) -> None:
    """It runs where that is blocked; that the model needs it is said in one sentence, wherever in the log it is."""
    (tmp_path / "config.json").write_text('{"auto_map": {"AutoModel": "own.Model"}}')
    port = server.free_port()
    with (
        pytest.raises(
            CellError, match=r"^the model needs code of its own \(own\.Model\), which is not run here: name a"
        ),
        server.running(_server(port, how="code"), port, _core(), "cpu", model=tmp_path),
    ):
        pass


@pytest.mark.usefixtures("cache")
def test_a_server_that_dies_in_use_is_noticed() -> None:
    """`ended` says so, with its code."""
    port = server.free_port()
    with server.running(_server(port), port, _core(), "cpu") as live:
        with pytest.raises(OSError, match=r"."):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/quit", timeout=2)
        assert live.process is not None
        live.process.wait(timeout=5)
        assert live.ended.startswith("the server ended (code 5) while it was used")


def test_a_run_killed_outright_leaves_no_server_behind(cache: Path) -> None:
    """Its server dies with it; what it had started is found by the next start, named by doctor, and ended."""
    script = (
        "import sys, time\n"
        "from bench.envs import environment\n"
        "from bench.process import server\n"
        "from tests.process.test_server import _server\n"
        "port = server.free_port()\n"
        "with server.running(_server(port), port, environment.ensure('core', print), 'cpu') as live:\n"
        "    print(live.pid, flush=True)\n"
        "    time.sleep(600)\n"
    )
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=root,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root), "LLM_BENCH_CACHE": str(cache)},
    ) as run:
        assert run.stdout is not None
        pid = int(run.stdout.readline())
        run.kill()
    deadline = time.monotonic() + 5
    while _lives(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _lives(pid)
    assert server.end_orphans() == []


@pytest.mark.usefixtures("cache")
def test_an_orphan_is_found_named_and_ended() -> None:
    """One whose owner is gone and that lives all the same: `doctor` names it, the next start ends it."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as left:
        started = psutil.Process(left.pid).create_time()
        note = {"name": "hf", "pid": left.pid, "started": started, "machine": bound.machine()}
        file = paths.cache_folder("servers") / f"{left.pid}.json"
        file.write_text(json.dumps(note))
        assert [o.pid for o in server.orphans()] == [left.pid]
        assert any(f"hf server of a run that is gone, process {left.pid}" in line for line in doctor.lines())
        assert [o.name for o in server.end_orphans()] == ["hf"]
        assert not _lives(left.pid)
    assert server.orphans() == []
    assert not file.exists()


@pytest.mark.usefixtures("cache")
def test_a_server_of_another_container_is_left_alone() -> None:
    """Its processes are not seen from here, where its id is another's: no orphan; its note stays until a restart."""
    other, boot = psutil.Process(), bound.machine().partition("/")[0]  # would end these tests
    note = {"name": "hf", "pid": other.pid, "started": other.create_time()}
    file = paths.cache_folder("servers") / "one.json"
    for machine, remains in ((f"{boot}/pid:[1]", True), ("before the last start/pid:[1]", False)):
        file.write_text(json.dumps({**note, "machine": machine}))
        assert server.orphans() == []
        assert file.exists() is remains


def _lives(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False
