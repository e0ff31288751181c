"""What a record keeps of the physics of its cell: the model's architecture, and what the device can do."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench import formats


def facts(folder: Path, ceiling: Mapping[str, Any]) -> dict[str, Any]:
    """`architecture` of the artifact in `folder`, and the device's `ceiling` where it is given.

    Nothing for a model that is no plain decoder.
    """
    found = formats.read_architecture(folder)
    return {} if found is None else {"architecture": dataclasses.asdict(found), **ceiling}
