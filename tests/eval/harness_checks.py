"""lm-eval's own `--model hf` on some tasks, as JSON by item: what this suite's records are compared with.

`HF_PYTHON harness_checks.py SITE MODEL LENGTH INCLUDE DATA LIMIT TASK...`: SITE is the site-packages of the
lm_eval environment, put behind this environment's own; DATA the folder of this suite's tasks that read files.
"""

from __future__ import annotations

import json
import sys


def main(site: str, model: str, length: int, include: str, data: str, limit: int, tasks: list[str]) -> None:
    sys.path.append(site)
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=[include, "configs/tasks"], include_defaults=False, metadata={"data": data})
    theirs = HFLM(pretrained=model, dtype="float32", device="cpu", max_length=length, batch_size=4)
    results = {}
    for task in tasks:
        result = simple_evaluate(
            theirs,
            tasks=[task],
            task_manager=manager,
            limit=limit,
            bootstrap_iters=0,
            random_seed=1234,
            numpy_random_seed=1234,
            fewshot_random_seed=1234,
        )
        assert result is not None
        results[task] = {
            "scores": {k.partition(",")[0]: v for k, v in result["results"][task].items() if "," in k},
            "items": [
                {**{m: s[m] for m in s["metrics"]}, "replies": [r[0] for r in s["resps"]]}
                for s in result["samples"][task]
            ],
        }
    sys.stdout.write("\n" + json.dumps(results, default=str) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4], sys.argv[5], int(sys.argv[6]), sys.argv[7:])
