import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.contract.errors import UserError
from bench.contract.record import Artifact, Audit, Ceiling, Hardware, RequestTrace, Result
from bench.contract.spec import Cell, EngineSpec, Model, Recipe, Step, Task
from bench.contract.workload import Offline
from bench.store import Store, safe_name
from tests.conftest import Command

HARDWARE = Hardware("cpu", "cpu-x-2c-8gib", "X", 2**33, "X", 2, 2**33, ("avx2",), "float32", "Linux")
AUDIT = Audit(
    "gptq", 1000, 900, 100, 90, 800, 4.25, 1.0, tied_head=True, vocab_size=8, context=16, tensor_types={"I32": 2}
)
STEP = Step("gptq", {"bits": 4, "damp": 0.01, "order": None, "sym": True, "kernel": "auto"})
TRACES = (
    RequestTrace(0, 0, 4, 0.0, 0.0, (123.4567891, 123.5), (1, 1)),
    RequestTrace(1, 0, 4, 0.0, 0.0, (), (), "connection reset"),
)


def served(round_: int = 0) -> Result:
    cell = Cell(Model("demo"), Recipe("gptq-4", (STEP,)), EngineSpec("hf"), "cpu", Offline())
    return Result(
        digest=f"d{round_}",
        suite="demo",
        cell=cell,
        round=round_,
        status="ok",
        hardware=HARDWARE,
        artifact=Artifact("a", "gptq", "sha", (STEP,), AUDIT, facts={"deep": {"list": [1, 2.5, None]}}),
        metrics={"ttft_s": 0.25},
        facts={"window_nll": [1.5, 2.5]},
        marks=("busy",),
        started="2026-11-22",
    )


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    """Every type survives: options, tuples, nested facts, the artifact and the hardware."""
    store = Store(tmp_path)
    path = store.put(served())
    assert store.get(path) == served()
    assert list(store.all()) == [served()]
    assert store.find(served()) == served()
    assert store.find(served(1)) is None


def test_paths_tell_what_a_record_is(tmp_path: Path) -> None:
    """Device, suite, kind, model, recipe, then engine and workload or task; artifacts have no engine."""
    store, result = Store(tmp_path), served(2)
    path = store.path(result).relative_to(tmp_path).as_posix()
    assert path == "cpu-x-2c-8gib/demo/serving/demo/gptq-4/hf/offline-b1-p128-n64/r2.json"
    scored = replace(result, cell=replace(result.cell, workload=None, task=Task("perplexity")))
    assert store.path(scored).parts[-7:] == ("demo", "quality", "demo", "gptq-4", "hf", "perplexity", "r2.json")
    output = replace(result, cell=replace(result.cell, workload=None), round=0)
    assert store.path(output).parts[-5:] == ("demo", "artifacts", "demo", "gptq-4", "r0.json")


@pytest.mark.parametrize("name", ["a/b", "..", ".", "", ".hidden", "Größe 1", "x" * 101, "a b", "c:d", "a\nb", "~"])
def test_names_that_are_no_file_names(tmp_path: Path, name: str) -> None:
    """Whatever a recipe is called, it is one visible component below its folder, marked as changed."""
    safe = safe_name(name)
    assert "~" in safe
    assert not safe.startswith((".", "-"))
    assert len(safe) <= 110
    (tmp_path / safe).touch()
    assert [p.name for p in tmp_path.iterdir()] == [safe]


def test_different_names_stay_different() -> None:
    """Names that differ only in what is escaped or cut off do not share a path; good names are kept."""
    names = ["a/b", "a:b", "a_b", "a b", "x" * 101, "x" * 102, ".", ".."]
    assert len({safe_name(n) for n in names}) == len(names)
    assert safe_name("gguf-Q4_K_M+v2=1.0") == "gguf-Q4_K_M+v2=1.0"


def test_records_are_written_the_same_every_time(tmp_path: Path) -> None:
    """Sorted keys, six significant digits, no clock in the gzip header: git sees real changes only."""
    store = Store(tmp_path)
    result = replace(served(), metrics={"z": 1 / 3, "a": 1.0})
    path = store.put(result, TRACES)
    files = [path, path.with_name("r0.traces.jsonl.gz"), tmp_path / "cpu-x-2c-8gib/machine.json"]
    before = [f.read_bytes() for f in files]
    store.put(result, TRACES)
    assert [f.read_bytes() for f in files] == before
    data = json.loads(path.read_text())
    assert data["metrics"] == {"a": 1.0, "z": 0.333333}
    assert list(data) == sorted(data)
    assert not [f for f in tmp_path.rglob("*") if f.name.endswith(".part")]


def test_traces_keep_microseconds(tmp_path: Path) -> None:
    """A stamp two minutes into a window keeps the digits an inter-token latency needs."""
    store = Store(tmp_path)
    path = store.put(served(), TRACES)
    first, failed = store.traces(path)
    assert first.token_s == (123.456789, 123.5)
    assert failed == TRACES[1]


def test_traces_of_another_record_are_refused(tmp_path: Path) -> None:
    """A crash between traces and record leaves a pair that does not match, and it is said."""
    store = Store(tmp_path)
    path = store.put(served(), TRACES)
    text = path.read_text().replace('"d0"', '"older"')
    path.write_text(text)
    with pytest.raises(UserError, match="belongs to another record"):
        store.traces(path)


def test_a_record_without_traces_takes_the_old_ones_away(tmp_path: Path) -> None:
    """Replacing a record replaces its traces, also by none."""
    store = Store(tmp_path)
    path = store.put(served(), TRACES)
    store.put(replace(served(), status="failed", reason="killed"))
    assert store.traces(path) == ()
    result = store.get(path)
    assert result is not None
    assert result.reason == "killed"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "EOF"),
        ('{"digest": "x"', "EOF"),
        ("[]", "not a record"),
        ('{"schema": 99}', "it has schema 99, this version reads 1"),
        ('{"schema": 1}', "digest"),
    ],
)
def test_what_is_no_record_is_named_and_skipped(tmp_path: Path, text: str, message: str) -> None:
    """One bad file is a sentence with its name; the others are read."""
    store = Store(tmp_path)
    good, bad = store.put(served()), store.path(served(1))
    bad.write_text(text)
    assert list(store.all()) == [store.get(good)]
    assert len(store.problems) == 1
    assert str(bad) in store.problems[0]
    assert message in store.problems[0]
    with pytest.raises(UserError, match="is not a record"):
        store.get(bad)


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        (('"ttft_s": 0.25', '"ttft_s": -500'), "ttft_s is -500, and must be positive"),
        (('"ttft_s": 0.25', '"request_per_s": -1'), "request_per_s is -1, and cannot be negative"),
        (('"ttft_s": 0.25', '"ttft_s": 1e300'), "ttft_s is 1e+300 s, longer than the whole round of 9 s"),
        (('"ttft_s": 0.25', '"mbu_fraction": 7'), "mbu_fraction is 7, more than the device can do"),
        (('"ttft_s": 0.25', '"peak_memory_bytes": 1'), "peak memory of 1 bytes is less than the 900 bytes of weights"),
        (('"facts": {', '"facts": {"stages": [{"metrics": {"tpot_s": -3}}],'), "tpot_s of load 1 is -3"),
        (('"facts": {', '"facts": {"stages": [{"metrics": {"tpot_s": "x"}}, 4],'), "tpot_s of load 1 is not a finite"),
        (('"facts": {', '"facts": {"stages": [7],'), "its metrics of load 1 is not a finite"),
        (('"bits_per_weight": 4.25', '"bits_per_weight": -4'), "bits_per_weight of the artifact is -4, and cannot be"),
        (('"quantized_fraction": 1.0', '"quantized_fraction": 3'), "quantized_fraction of the artifact is 3, and must"),
    ],
)
def test_a_figure_that_cannot_be_is_not_read(tmp_path: Path, edit: tuple[str, str], sentence: str) -> None:
    """Edited into a record that was sound: one sentence names the file and the figure, and no table has it."""
    store = Store(tmp_path / "results")
    good, bad = store.put(served()), store.put(replace(served(1), duration_s=9.0))
    text = bad.read_text()
    at = text.rindex(edit[0])  # of facts the record's, not its artifact's
    bad.write_text(text[:at] + edit[1] + text[at + len(edit[0]) :])

    assert list(store.all()) == [store.get(good)]
    (problem,) = store.problems
    assert problem.startswith(f"{bad} has figures that cannot be: {sentence}")
    assert problem.endswith("; move it away and run the cell again")
    with pytest.raises(UserError, match="figures that cannot be"):
        store.get(bad)


@pytest.mark.parametrize(
    "wrong", [{"token_s": (-9.0, 0.5)}, {"token_s": (0.5, 0.4)}, {"token_s": (0.5,)}, {"event_tokens": (1, -1)}]
)
def test_times_that_cannot_be_are_not_read(tmp_path: Path, wrong: dict[str, Any]) -> None:
    """Tokens before the request was sent, or one before the other: no figure is drawn of them."""
    store = Store(tmp_path)
    path = store.put(served(), [replace(TRACES[0], token_s=(0.5, 0.6))])
    assert len(store.traces(path)) == 1
    store.put(served(), [replace(TRACES[0], **{"token_s": (0.5, 0.6), **wrong})])

    with pytest.raises(UserError, match=r"has times that cannot be, and is damaged; delete it"):
        store.traces(path)


def test_a_ceiling_that_cannot_be_is_none(tmp_path: Path) -> None:
    """A bandwidth of nothing, or below it: nothing is put beside it."""
    store = Store(tmp_path)
    for rate, there in ((1e10, True), (0.0, False), (-1.0, False)):
        store.put_ceiling(HARDWARE, Ceiling("measured here", {"0": rate}, {"float32": 1e11}))
        assert (store.ceiling(HARDWARE) is not None) is there


@pytest.mark.slow
def test_an_impossible_figure_is_in_no_output(tmp_path: Path, command: Command) -> None:
    """A table leaves the record out and says so; the public face and a report refuse."""
    store = Store(tmp_path / "results")
    store.put(served())
    bad = store.put(replace(served(1), metrics={"tpot_s": 0.5}))
    bad.write_text(bad.read_text().replace('"tpot_s": 0.5', '"tpot_s": -500'))
    table = command("bench", "table", "--results", str(tmp_path / "results"))
    report = command("bench", "report", "--results", str(tmp_path / "results"))

    assert table.returncode == 0
    assert "-500" not in table.stdout
    assert "r1.json has figures that cannot be: tpot_s is -500" in table.stderr
    assert report.returncode == 2
    assert "r1.json has figures that cannot be: tpot_s is -500" in report.stderr
    assert "Traceback" not in report.stderr


def test_another_schema_is_refused_even_when_it_fits(tmp_path: Path) -> None:
    """A record whose fields still parse but whose schema is another's is not read as ours."""
    store = Store(tmp_path)
    path = store.put(served())
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 2'))
    with pytest.raises(UserError, match="schema 2"):
        store.get(path)


def test_damaged_traces_are_named(tmp_path: Path) -> None:
    """Half a gzip, or something else by that name, is a sentence."""
    store = Store(tmp_path)
    path = store.put(served(), TRACES)
    traces = path.with_name("r0.traces.jsonl.gz")
    head = gzip.decompress(traces.read_bytes()).splitlines()[0]
    other = gzip.compress(head + b'\n{"requests": 1}\n[1]\n')
    for data in (traces.read_bytes()[:40], b"text", gzip.compress(b"{}\n"), gzip.compress(b""), other):
        traces.write_bytes(data)
        with pytest.raises(UserError, match=r"r0\.traces\.jsonl\.gz is damaged"):
            store.traces(path)


def test_a_pattern_chooses_among_records(tmp_path: Path) -> None:
    """A glob over the path below the root; other files are not records."""
    store = Store(tmp_path)
    for round_ in range(3):
        store.put(served(round_), TRACES)
    (tmp_path / "notes.json").write_text("{}")
    assert [r.round for r in store.all()] == [0, 1, 2]
    assert [r.round for r in store.all("cpu-*/serving/*/r1.json")] == [1]
    assert list(store.all("gpu-*")) == []
    assert list(Store(tmp_path / "nowhere").all()) == []


def test_the_machine_is_described_once_per_device(tmp_path: Path) -> None:
    """machine.json is the hardware of the device's folder."""
    Store(tmp_path).put(served())
    assert json.loads((tmp_path / HARDWARE.slug / "machine.json").read_text())["name"] == "X"


def test_items_come_back_by_the_names_of_their_columns(tmp_path: Path) -> None:
    """They are tied to their record as traces are, and go with it."""
    store, scored = Store(tmp_path), replace(served(), digest="d1")
    items = (("item", "acc", "replies"), (0, 1.0, [[-1.25, True], [-3.5, False]]), (1, 0.0, ["text"]))
    path = store.put(scored, items=items)

    assert [item["acc"] for item in store.items(path)] == [1.0, 0.0]
    assert store.items(path)[0]["replies"] == [[-1.25, True], [-3.5, False]]
    assert store.traces(path) == ()
    store.put(replace(scored, digest="d2"))
    assert store.items(path) == ()
    assert not path.with_name("r0.items.jsonl.gz").exists()
    path.with_name("r0.items.jsonl.gz").write_bytes(gzip.compress(b'{"digest":"d1"}\n["item"]\n[0]\n'))
    with pytest.raises(UserError, match="belongs to another record"):
        store.items(path)


def test_no_secret_is_put_into_a_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever wrote it where: a reason, a receipt, a fact's name, an artifact, a trace, an item."""
    secret, named = "tok-0123456789", "no-name-says-so"
    monkeypatch.setenv("ACME_TOKEN", secret)
    monkeypatch.setenv("WHATEVER", named)
    result = served()
    assert result.artifact is not None
    leaky = replace(
        result,
        cell=replace(result.cell, engine=EngineSpec("openai", {"key_variable": "WHATEVER"})),
        reason=f"refused: {named}",
        receipts={"owned_by": secret},
        facts={f"from {secret}": [{"deep": named}]},
        artifact=replace(result.artifact, facts={"log": secret}),
    )
    store = Store(tmp_path)
    path = store.put(leaky, (replace(TRACES[1], error=named),), (("text",), (secret,)))

    assert secret.encode() not in path.read_bytes()
    assert named.encode() not in path.read_bytes()
    assert store.get(path) == replace(
        leaky,
        reason="refused: <WHATEVER>",
        receipts={"owned_by": "<ACME_TOKEN>"},
        facts={"from <ACME_TOKEN>": [{"deep": "<WHATEVER>"}]},
        artifact=replace(result.artifact, facts={"log": "<ACME_TOKEN>"}),
    )
    assert store.traces(path)[0].error == "<WHATEVER>"
    assert store.items(path) == ({"text": "<ACME_TOKEN>"},)
