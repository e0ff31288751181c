"""Tasks that read a file ask what lm-eval's own task asks of the same row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.envs import environment
from tests.conftest import json_of

pytestmark = [pytest.mark.engine, pytest.mark.needs("lm_eval")]

# Rows as the Hub's data sets have them, and the line of a file that is the same item.
_ITEMS: dict[str, list[tuple[dict[str, Any], dict[str, Any]]]] = {
    task: [
        (
            {
                "question": "Which gas do plants take in?",
                "choices": {"text": ["oxygen", "carbon dioxide", " none"], "label": ["A", "B", "C"]},
                "answerKey": "B",
            },
            {
                "query": "Question: Which gas do plants take in?",
                "choices": ["oxygen", "carbon dioxide", " none"],
                "gold": 1,
            },
        ),
        (
            {
                "question": "It is 5 {{ }} %: why\u2028not?",
                "choices": {"text": ["a", "b"], "label": ["1", "2"]},
                "answerKey": "1",
            },
            {"query": "Question: It is 5 {{ }} %: why\u2028not?", "choices": ["a", "b"], "gold": 0},
        ),
    ]
    for task in ("arc_easy", "arc_challenge")
} | {
    "piqa": [
        (
            {"goal": "dresser", "sol1": "replace drawer with bobby pin", "sol2": "finish, woodgrain", "label": 1},
            {
                "query": "Question: dresser\n",
                "choices": ["replace drawer with bobby pin", "finish, woodgrain"],
                "gold": 1,
            },
        )
    ],
    "hellaswag": [
        (
            {
                "activity_label": "Roof shingle removal",
                "ctx_a": "A man is sitting on a roof.",
                "ctx_b": "he",
                "endings": ["is using wrap to wrap a pair of skis.", "starts pulling up roofing on a roof."],
                "label": "1",
            },
            {
                "query": "Roof shingle removal: A man is sitting on a roof. he",
                "choices": ["is using wrap to wrap a pair of skis.", "starts pulling up roofing on a roof."],
                "gold": 1,
            },
        ),
        (
            {
                "activity_label": "Health",
                "ctx_a": "[header] How to nap [title] Lie down. [step] Close your eyes.  Wait.",
                "ctx_b": "",
                "endings": ["[substeps] Sleep [title] Soundly.", "Do not."],
                "label": "0",
            },
            {
                "query": "Health: How to nap. Lie down. Close your eyes. Wait.",
                "choices": [" Sleep. Soundly.", "Do not."],
                "gold": 0,
            },
        ),
        (
            {
                "activity_label": "High jump",
                "ctx_a": "",
                "ctx_b": "the boy in Red",
                "endings": ["runs.", "sits."],
                "label": "0",
            },
            {"query": "High jump: the boy in Red", "choices": ["runs.", "sits."], "gold": 0},
        ),
    ],
    "lambada_openai": [
        (
            {"text": 'I look.\n\n"Stay,  will you?"\n\nI don\'t care about signs'},
            {"context": 'I look.\n\n"Stay,  will you?"\n\nI don\'t care about', "continuation": "signs"},
        )
    ],
}


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """By task what lm-eval's own YAML asks of the rows, and what this suite's asks of the files."""
    folder = tmp_path_factory.mktemp("data")
    for name, items in _ITEMS.items():
        lines = [json.dumps(line, ensure_ascii=False) for _, line in items]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    rows = json.dumps({name: [row for row, _ in items] for name, items in _ITEMS.items()})
    return json_of(environment.ensure("lm_eval", print).python, "eval/wording_checks.py", rows, folder)


@pytest.mark.parametrize("task", _ITEMS)
def test_a_file_and_the_hub_give_the_same_requests(both: Any, task: str) -> None:
    """Context and continuation to the character, the right choice, the metrics and how they are aggregated."""
    theirs, ours = both[task]

    assert len(theirs["requests"]) >= len(_ITEMS[task])
    assert ours == theirs


def test_files_lie_where_a_suite_looks(tmp_path: Path) -> None:
    """Every task here is one that a suite's `data` names a file of."""
    from eval.tasks import lm_eval

    (tmp_path / "tasks").mkdir()
    for task in _ITEMS:
        (tmp_path / "tasks" / f"{task}.jsonl").write_text("")
        options = lm_eval.local(lm_eval.Options(tasks=task), tmp_path)
        assert (options.tasks, options.data) == (f"{task}_local", f"path:{tmp_path}/tasks/{task}.jsonl")
