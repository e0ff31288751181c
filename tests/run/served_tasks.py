"""A task that generates, as lm-eval's YAML in a folder: lines of this checkout to be continued."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ITEMS = 6
_STARTS = (
    "def add_{}(first, second):\n    return",
    "import os\nimport sys\n\nclass Reader{}(",
    "for name in names[{}:]:\n    if name",
    "try:\n    value = int(text)\nexcept",
    "    def close(self):\n        self.",
    '    """Return the number of',
)
_TASK = """
task: continued
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: generate_until
doc_to_text: start
doc_to_target: rest
generation_kwargs: {{until: ["@@@"], max_gen_toks: {tokens}, do_sample: false}}
metric_list: [{{metric: exact_match}}]
metadata: {{version: 1}}
"""


def folder(path: Path, tokens: int = 8, items: int = ITEMS) -> Path:
    """The folder with the task `continued`."""
    path.mkdir(parents=True, exist_ok=True)
    rows = [{"start": _STARTS[n % len(_STARTS)].format(n), "rest": " first"} for n in range(items)]
    (path / "continued.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (path / "continued.yaml").write_text(_TASK.format(file=path / "continued.jsonl", tokens=tokens))
    return path


def task(path: Path, **options: Any) -> dict[str, Any]:
    """The task as a suite has it."""
    return {"task": "lm_eval", "tasks": "continued", "include_path": str(path), **options}
