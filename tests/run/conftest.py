"""A server that somebody else started."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from bench.process import server
from tests.conftest import ROOT


@pytest.fixture
def endpoint() -> Iterator[str]:
    """The fake engine's server, started by hand: 20 ms to the first token, 5 to each after it."""
    port = server.free_port()
    words = json.dumps({"port": port, "ttft_s": 0.02, "itl_s": 0.005})
    with subprocess.Popen([sys.executable, "-m", "bench.engines.fake", words], cwd=ROOT) as process:
        time.sleep(1.0)
        yield f"http://127.0.0.1:{port}"
        process.kill()
