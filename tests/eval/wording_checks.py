"""Requests and targets of lm-eval's own tasks from rows as the Hub has them, and of this suite's from files, as JSON.

`LM_EVAL_PYTHON wording_checks.py ROWS DATA`: ROWS is JSON of {task: [row, ...]}, DATA the folder of the files.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

_FILES = {
    "arc_easy": "arc/arc_easy.yaml",
    "arc_challenge": "arc/arc_challenge.yaml",
    "piqa": "piqa/piqa.yaml",
    "hellaswag": "hellaswag/hellaswag.yaml",
    "lambada_openai": "lambada/lambada_openai.yaml",
}


def main(rows: dict[str, list[dict[str, Any]]], data: str) -> None:
    import lm_eval.tasks
    from datasets import Dataset

    theirs = Path(lm_eval.tasks.__file__).parent
    requests_by_task = {}
    for name, docs in rows.items():
        dataset = Dataset.from_list(docs)
        splits = dict.fromkeys(("train", "validation", "test"), dataset)
        requests_by_task[name] = [
            _requests(theirs / _FILES[name], {"custom_dataset": lambda splits=splits, **_: splits}),
            _requests(Path("configs/tasks") / f"{name}_local.yaml", {"metadata": {"data": data}}),
        ]
    sys.stdout.write("\n" + json.dumps(requests_by_task) + "\n")


def _requests(file: Path, more: dict[str, Any]) -> dict[str, Any]:
    """What a task's YAML makes: texts of each request, its target, its metrics and how they are aggregated."""
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.tasks._yaml_loader import load_yaml

    config = {**load_yaml(file, resolve_func=True), **more}
    for key in ("tag", "include") + (("dataset_path", "dataset_name") if "custom_dataset" in more else ()):
        config.pop(key, None)
    task = ConfigurableTask(config=config)
    task.set_config(key="num_fewshot", value=0)
    task.build_all_requests(rank=0, world_size=1)
    docs = list(task.eval_docs)
    return {
        "requests": [[r.doc_id, r.request_type, *r.args] for r in task.instances],
        "targets": [task.doc_to_target(doc) for doc in docs],
        "metrics": sorted(task.higher_is_better().items()),
        "aggregation": sorted((name, by.__name__) for name, by in task.aggregation().items()),
    }


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), sys.argv[2])
