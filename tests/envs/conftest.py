"""An index on loopback, and an environment `tiny` of a user's own that takes its package from there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.envs import environment
from tests.envs import index as loopback
from tests.envs.index import Index


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    """An index on loopback, the only one that pip is told of."""
    with loopback.served(tmp_path / "index") as served:
        for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
        monkeypatch.setenv("PIP_INDEX_URL", served.url)
        monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
        yield served
    environment.spec.cache_clear()


@pytest.fixture
def envs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a user's own environments, with one, `tiny`, that wants the package `wanted`."""
    folder = tmp_path / "mine" / "envs"
    (folder / "hashes").mkdir(parents=True)
    (folder / "tiny.yaml").write_text("requirements: [wanted==1.0]\nvariables: {}\nrecords: [wanted, needed]\n")
    (folder / "tiny.txt").write_text("wanted==1.0\nneeded==1.0\n")
    monkeypatch.setenv("LLM_BENCH_PLUGINS", str(folder.parent))
    environment.spec.cache_clear()
    return folder
