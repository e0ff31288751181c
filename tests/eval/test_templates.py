"""Chat templates and tasks of strangers in lm-eval: rendered within limits, and no code but what is meant to run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.quantize import in_environment

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.needs("lm_eval")]
_LOOP = "{% for i in range(99999) %}"
_TEMPLATES = {
    "{% for m in messages %}{{ m['content'] }}{% endfor %}": "rendered",
    f"{_LOOP * 3}{'{% endfor %}' * 3}": "the model's chat template is not rendered within 5 s: it may never end",
    "{% for i in range(10**12) %}a{% endfor %}": "cannot be rendered (OverflowError: Range too big",
    "{{ 'x' * 10**10 }}": "the model's chat template takes over 1 GiB of memory to render: give the model another",
    "{{ cycler.__init__.__globals__.os.system('touch ran') }}": "cannot be rendered (SecurityError: access to",
    "{{ ''.__class__.__mro__ }}": "cannot be rendered (SecurityError: access to",
    "{{ " + "(" * 20_000 + ")" * 20_000 + " }}": "cannot be rendered (RecursionError: maximum recursion depth",
    "{{ 1 }": "cannot be rendered (TemplateSyntaxError: ",
}
_CHAT = """
import json, sys, time
from pathlib import Path
from transformers import AutoTokenizer
from eval.lm_eval import token_model
model = token_model.TokenLM(AutoTokenizer.from_pretrained(sys.argv[1]), 500, None)
reasons = []
for template in json.loads(Path(sys.argv[2]).read_text()):
    model.tokenizer.chat_template = template
    try:
        model.apply_chat_template([{"role": "user", "content": "a"}])
        reasons.append("rendered")
    except Exception as error:
        reasons.append(f"{type(error).__name__} {error}")
print("RESULT", json.dumps(reasons))
"""


def test_a_chat_template_is_rendered_within_limits(tmp_path: Path) -> None:
    """One that never ends, that fills the memory, that climbs out of the sandbox, too deep: a sentence for each."""
    (tmp_path / "templates.json").write_text(json.dumps(list(_TEMPLATES)))
    reasons = in_environment.run(
        "lm_eval", tmp_path, _CHAT, str(ROOT / "models/demo"), str(tmp_path / "templates.json")
    )

    for reason, expected in zip(json.loads(reasons), _TEMPLATES.values(), strict=True):
        assert expected in reason
        assert reason.startswith("rendered" if expected == "rendered" else "UserError")
    assert not list(tmp_path.rglob("ran"))


_DATA = "dataset_path: json\ndataset_kwargs: {data_files: {test: DATA}}\n"
_TASKS = {
    f"{_DATA}doc_to_text: query\n": "run",
    f"{_DATA}doc_to_text: !function beside.text\n": "run",
    "custom_dataset: !function os.system\ndataset_kwargs: {command: touch RAN}\n": "!function os.system is not taken",
    f"{_DATA}process_docs: !function subprocess.run\n": "!function subprocess.run is not taken: it is not of a Python",
    f"{_DATA}process_docs: !function .OUTSIDE.own.text\n": ".own.text is not taken",
    f"include: ../outside/other.yaml\n{_DATA}doc_to_text: query\n": "!function own.text is not taken",
    f"{_DATA}doc_to_text: \"{{{{ cycler.__init__.__globals__.os.system('touch RAN') }}}}\"\n": "SecurityError",
    "dataset_path: OUTSIDE/own.py\n": "Dataset scripts are no longer supported",
}
_RUN = """
import json, sys
from pathlib import Path
from bench.contract.errors import UserError
from eval.lm_eval import harness
from eval.tasks import lm_eval
reasons = []
for number in range(int(sys.argv[3])):
    options = lm_eval.Options(tasks=f"mine_{number}", include_path=sys.argv[2])
    try:
        harness.run(options, Path(sys.argv[1]), 500, None)
        reasons.append("run")
    except UserError as error:
        reasons.append(str(error))
print("RESULT", json.dumps(reasons))
"""


def test_a_task_runs_no_code_from_elsewhere(tmp_path: Path) -> None:
    """Python beside its YAML may run; other modules, files outside the folder, templates and scripts may not."""
    folder, outside, ran = tmp_path / "tasks", tmp_path / "outside", tmp_path / "ran"
    shutil.copytree(ROOT / "models/demo", tmp_path / "model")
    for place in (folder, outside):
        place.mkdir()
    (folder / "data.jsonl").write_text('{"query": "a", "choices": [" b", " c"], "gold": 0}\n' * 2)
    (folder / "beside.py").write_text("def text(row): return row['query']\n")
    (outside / "own.py").write_text(f"open({str(ran)!r}, 'w')\ndef text(row): return 'a'\n")
    (outside / "other.yaml").write_text("process_docs: !function own.text\n")
    words = {"DATA": folder / "data.jsonl", "RAN": ran, "OUTSIDE": outside}
    common = "output_type: multiple_choice\ntest_split: test\ndoc_to_choice: choices\ndoc_to_target: gold\n"
    for number, text in enumerate(_TASKS):
        path = str(outside).strip("/").replace("/", ".")
        text = text.replace("!function .OUTSIDE", f"!function .{path}")  # noqa: PLW2901
        for word, value in words.items():
            text = text.replace(word, str(value))  # noqa: PLW2901
        if "doc_to_text" not in text:
            text += "doc_to_text: query\n"  # noqa: PLW2901
        (folder / f"mine_{number}.yaml").write_text(f"task: mine_{number}\n{common}{text}metadata: {{version: 1}}\n")
    reasons = in_environment.run("lm_eval", tmp_path, _RUN, str(tmp_path / "model"), str(folder), str(len(_TASKS)))

    for reason, expected in zip(json.loads(reasons), _TASKS.values(), strict=True):
        assert expected in reason
    assert not ran.exists()
