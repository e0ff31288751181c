"""The scripted server, once for all tests of the instrument."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.instrument.scripted_server import Scripted, running


@pytest.fixture(scope="session")
def server() -> Iterator[Scripted]:
    with running() as server:
        yield server
