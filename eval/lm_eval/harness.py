"""lm-evaluation-harness without a model in it: it runs twice, in its own environment.

First against a model that records requests, then against the same one with an engine's replies to those token
ids: a score is that of `--model hf` on the same weights.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from lm_eval import simple_evaluate
from lm_eval.api import model as model_module
from lm_eval.api import task as task_module
from lm_eval.tasks import TaskManager

from bench import paths
from bench.contract import phase, plugins
from bench.contract.errors import UserError
from eval.lm_eval import chat, templates
from eval.lm_eval.token_model import Replies, TokenLM

TASKS = paths.CONFIGS / "tasks"


def run(options: Any, folder: Path, max_length: int, replies: Replies | None) -> tuple[TokenLM, Any]:
    """The model with its requests, and lm-eval's results, for the options of eval/tasks/lm_eval.py."""
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    phase.begin("loading the task")
    task_module.tqdm = phase.bar("{done:,} of {total:,} items")
    model_module.tqdm = phase.bar("{done:,} of {total:,} choices tokenized")
    model = TokenLM(chat.load(folder), max_length, replies)
    try:
        manager = _task_manager(options)
        chosen = _spread(manager, options) if options.spread and options.limit else None
        results = simple_evaluate(
            model=model,
            tasks=[options.tasks],
            task_manager=manager,
            num_fewshot=None if options.num_fewshot < 0 else options.num_fewshot,
            limit=None if chosen else options.limit or None,
            samples=chosen,
            bootstrap_iters=0 if replies is None else 1000,
            apply_chat_template=options.apply_chat_template,
            system_instruction=options.system_instruction or None,
            random_seed=options.seed,
            numpy_random_seed=options.seed,
            torch_random_seed=None,
            fewshot_random_seed=options.seed,
        )
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"lm-eval cannot run the task '{options.tasks}': {chat.cause(error)}") from error
    if options.tasks not in results["results"]:
        names = ", ".join(sorted(results["results"]))
        raise UserError(f"'{options.tasks}' is a group of tasks without a common score: choose one of {names}")
    return model, results


def _spread(manager: Any, options: Any) -> dict[str, list[int]]:
    """The numbers of each task's items: `limit` of them, evenly over all; of a task with fewer, all."""
    tasks = manager.load([options.tasks])["tasks"]
    counts = {name: len(task.eval_docs) for name, task in tasks.items()}
    limits = {name: min(options.limit, count) for name, count in counts.items()}
    return {name: [item * counts[name] // limit for item in range(limit)] for name, limit in limits.items()}


def _task_manager(options: Any) -> Any:
    """lm-eval's own tasks are listed (which takes seconds) only for a name that is in none of our folders."""
    folders = [str(TASKS)]
    if options.include_path:
        folders.append(options.include_path.removeprefix("path:"))
    templates.confine_tasks(*map(Path, folders))
    metadata = {"data": options.data.removeprefix("path:")} if options.data else None
    manager = TaskManager(include_path=folders, include_defaults=False, metadata=metadata)
    if options.tasks not in manager.all_tasks:
        manager = TaskManager(include_path=folders, metadata=metadata)
    if options.tasks not in manager.all_tasks:
        ours = ", ".join(sorted(file.stem for file in TASKS.glob("*.yaml")))
        message = plugins.unknown("lm-eval task", options.tasks, tuple(manager.all_tasks)).partition(" (known")[0]
        raise UserError(f"{message.rstrip(':')} (of this suite: {ours}; lm-eval's own: `lm_eval ls tasks`)")
    return manager
