"""What is reports of a download, by files that grow."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from bench.models import download
from tests.load.endpoints import Received, Response, endpoint

_FETCH = """
import sys
from bench.contract.errors import UserError
from bench.contract.spec import Model
from bench.models import resolve
try:
    resolve.resolve(Model("org/name"), fetch=True)
except UserError as error:
    print(error)
"""


def test_a_download_is_reported_by_the_bytes_in_its_folder(tmp_path: Path) -> None:
    """Whole and partial files, of the bytes that are expected where the Hub names their sizes."""
    reports: list[str] = []
    with download.reported("o/n", tmp_path, 3 << 20, reports.append, interval_s=0.05):
        time.sleep(0.2)
        (tmp_path / "whole").write_bytes(bytes(1 << 20))
        (tmp_path / "partial.incomplete").write_bytes(bytes(1 << 20))
        time.sleep(0.2)
    with download.reported("o/n", tmp_path, 0, reports.append, interval_s=9.0):
        pass

    assert reports[0] == "model o/n: fetching, 0 of 3 MiB"
    assert reports[-2:] == ["model o/n: fetching, 2 of 3 MiB", "model o/n: fetching, 2 MiB"]


def test_a_token_of_the_hub_goes_to_no_other_host(tmp_path: Path) -> None:
    """A Hub that redirects to another host gets the token, and that host does not."""
    with endpoint(lambda _: Response(404)) as other:

        def redirect(request: Received) -> Response:
            return Response(307, headers={"Location": other.url.replace("127.0.0.1", "localhost") + request.path})

        with endpoint(redirect) as hub:
            done = subprocess.run(
                [sys.executable, "-c", _FETCH],
                env={**os.environ, "HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_0123456789", "HF_HOME": str(tmp_path)},
                capture_output=True,
                text=True,
                check=False,
                timeout=120,
            )

    assert done.stdout.startswith("model 'org/name'"), done.stderr[-500:]
    assert any(request.headers.get("authorization") for request in hub.requests)
    assert other.requests
    assert not any("authorization" in request.headers for request in other.requests)
    assert "hf_0123456789" not in done.stdout
