"""Compress a language model, measure what it lost and what it won: the suite as a library.

    import bench

    rows = bench.load_results("results")        # records as rows: a list of dicts
    frame = rows.to_pandas()                    # or rows.to_arrow(), where these libraries are installed
    rows = bench.run("configs/smoke.yaml")      # run what a suite still lacks, and load its records

Names are imported when they are asked for: workers import this package in environments that lack what the
parent needs.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.contract.errors import UserError
    from bench.rows import Rows, load_results

__all__ = ["Rows", "UserError", "load_results", "run"]

_MODULES = {"Rows": "bench.rows", "load_results": "bench.rows", "UserError": "bench.contract.errors"}


def __getattr__(name: str) -> Any:
    if name == "run":
        return importlib.import_module("bench.run")  # a package that can be called: bench.run(suite)
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'bench' has no attribute '{name}'")
