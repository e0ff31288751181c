from __future__ import annotations

from pathlib import Path

import pytest

from bench.contract.errors import UserError
from bench.contract.spec import ApiPrice, HourPrice, Step
from bench.contract.workload import Closed
from bench.run import artifacts
from bench.suite import config, schema

_SMALL = {"name": "s", "model": "m", "engines": ["fake"], "recipes": ["fp32"], "workloads": [{"batch": 1}]}


def test_short_forms_are_spelled_out() -> None:
    """A model, a recipe and an engine may be a bare name; every option then holds its default."""
    suite = config.suite(_SMALL)

    assert suite.model.source == "m"
    assert suite.recipes[0].steps == (Step("none", {"dtype": "float32"}),)
    assert suite.engines[0].options["itl_s"] == 0.002
    assert suite.rounds == 3


def test_a_recipe_is_a_list_of_steps() -> None:
    """Steps written out are kept in order, each with its own options."""
    steps = [{"method": "none", "dtype": "float32"}, {"method": "none", "dtype": "float16"}]
    suite = config.suite({**_SMALL, "recipes": [{"name": "twice", "steps": steps}]})

    assert [s.options["dtype"] for s in suite.recipes[0].steps] == ["float32", "float16"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"recipies": []}, "recipies: unknown key; did you mean 'recipes'?"),
        ({"recipes": ["gptq-w4g182"]}, "did you mean 'gptq-w4g128'?"),
        ({"recipes": [{"name": "x", "steps": [{"metod": "gptq"}]}]}, "recipes[0].steps[0]: a step needs a method"),
        ({"recipes": [{"name": "x", "steps": [{"method": "gptp"}]}]}, "unknown method 'gptp': did you mean 'gptq'?"),
        (
            {"recipes": [{"name": "x", "steps": [{"method": "gptq", "groupsize": 64}]}]},
            "recipes[0].steps[0].groupsize: unknown key; did you mean 'group_size'?",
        ),
        ({"recipes": [{"name": "x", "steps": [{"method": "awq", "bits": 8}]}]}, "recipes[0].steps[0].bits: "),
        ({"engines": ["hg"]}, "unknown engine 'hg': did you mean 'hf'?"),
        (
            {"engines": [{"name": "llamacpp", "kv_dtype_k": "q8"}]},
            "engines[0].kv_dtype_k: input should be 'f32', 'f16'",
        ),
        ({"engines": [{"name": "fake", "itl_s": "slow"}]}, "engines[0].itl_s: "),
        ({"workloads": [{"batch": "many"}]}, "workloads[0].batch: "),
        ({"workloads": [{"new_tokens": 1}]}, "new_tokens starts at 2, got 1"),
        ({"workloads": []}, "at least one workload or task"),
        ({"tasks": ["perplexty"]}, "unknown task 'perplexty': did you mean 'perplexity'?"),
        ({"recipes": ["fp32", "fp32"]}, "two recipes are called 'fp32'"),
        ({"rounds": 0}, "rounds: must be at least 1"),
        ({"recipes": "fp32"}, "recipes: expected a list"),
        ({"model": None}, "model: "),
        ({"price_per_hour": 2.49}, "price_per_hour: invalid price of an hour '2.49': expected 'AMOUNT CURRENCY WHAT'"),
        ({"price_per_hour": "2.49 dollars an hour"}, "price_per_hour: invalid price of an hour"),
        ({"price_per_hour": {"amount": 2.49, "currency": "USD"}}, "price_per_hour.what: "),
        ({"price_per_hour": {"amount": 0, "currency": "USD", "what": "x"}}, "price_per_hour: amount must be above 0"),
        (
            {"price_per_hour": {"amount": True, "currency": "USD", "what": "x"}},
            "price_per_hour.amount: expected a numb",
        ),
        ({"price_per_hour": {"amount": 1, "currency": "usd", "what": "x"}}, "currency must be three capital letters"),
        ({"price_per_hour": {"amount": 1, "currency": "USD", "what": " "}}, "what must say what the price is for"),
        ({"price_per_hour": {"amount": 1, "currency": "USD", "what": "x", "per": "h"}}, "price_per_hour.per: "),
        ({"api_price": "0.6 USD x"}, "api_price: invalid price of an API '0.6 USD x': expected 'INPUT/OUTPUT"),
        ({"api_price": "0/0 USD x"}, "api_price: input and output are both 0"),
    ],
)
def test_a_mistake_is_one_sentence_with_its_path(change: dict[str, object], sentence: str) -> None:
    """What is wrong in a suite is named by its place, with a suggestion where there is a near word."""
    with pytest.raises(UserError) as caught:
        config.suite({**_SMALL, **change})

    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_overrides_reach_nested_keys(tmp_path: Path) -> None:
    """--set takes dotted keys, list positions and YAML values."""
    file = tmp_path / "mine.yaml"
    file.write_text("model: m\nengines: [{name: fake}]\nrecipes: [fp32]\nworkloads: [{batch: 1}]\n")
    suite = config.load_suite(file, ["rounds=7", "engines.0.itl_s=0.5", "model.revision=abc"])

    assert (suite.name, suite.rounds, suite.engines[0].options["itl_s"]) == ("mine", 7, 0.5)
    assert (suite.model.source, suite.model.revision) == ("m", "abc")


_FILE = "model: m\nengines: [{name: fake}, hf]\nrecipes: [fp32]\nworkloads: [{batch: 1}]\n"


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("engines.foo.x=1", "--set engines.foo.x: a place in a list is a number, here 0 to 1, and not 'foo'"),
        ("engines.9.dtype=float32", "here 0 to 1, and not '9'"),
        ("engines.-1.dtype=float32", "here 0 to 1, and not '-1'"),
        ("workloads.1.batch=2", "here 0 alone, and not '1'"),
        ("workloads.\u00b2.batch=2", "and not '\u00b2'"),
        ("engines=[{name: hf", "--set engines: '[{name: hf' is not valid YAML"),
        ("engine.0.dtype=float32", "the suite has no 'engine'; did you mean 'engines'?"),
        ("engines.0.name.x=1", "'name' has no parts: it is 'fake' in the suite"),
        ("rounds", "write key=value"),
        ("rounds.x=1", "the suite has no 'rounds'"),
        ("=1", "unknown key"),
        ("engines.0.itl_s={a: 1, a: 2}", "the key 'a' is given twice"),
        ("recipes.0.steps.0.dtyp=float16", "recipes[0].steps[0].dtyp: unknown key; did you mean 'dtype'?"),
    ],
)
def test_an_override_that_leads_nowhere_is_one_sentence(tmp_path: Path, override: str, sentence: str) -> None:
    """A place that a list has not, a name that nothing has, a value that is no YAML."""
    (file := tmp_path / "mine.yaml").write_text(_FILE)

    with pytest.raises(UserError) as caught:
        config.load_suite(file, [override])
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_override_below_a_bare_name_changes_what_it_stands_for(tmp_path: Path) -> None:
    """A recipe keeps its steps, an engine its defaults."""
    (file := tmp_path / "mine.yaml").write_text(_FILE)
    suite = config.load_suite(file, ["recipes.0.steps.0.dtype=float16", "engines.1.label=mine"])

    assert suite.recipes[0].steps == (Step("none", {"dtype": "float16"}),)
    assert (suite.engines[1].name, suite.engines[1].title) == ("hf", "mine")


def test_an_override_changes_nothing_that_an_alias_shares(tmp_path: Path) -> None:
    """Two loads with one limit by a YAML alias: the one that is named gets another."""
    loads = "[{name: a, kind: closed, slo: &slo {ttft_s: 0.5}}, {name: b, kind: closed, slo: *slo}]"
    lines = [line for line in _FILE.splitlines() if not line.startswith("workloads")]
    (file := tmp_path / "mine.yaml").write_text("\n".join([*lines, f"workloads: {loads}"]))
    first, second = config.load_suite(file, ["workloads.0.slo.ttft_s=9"]).workloads

    assert isinstance(first, Closed)
    assert isinstance(second, Closed)
    assert (first.slo.ttft_s, second.slo.ttft_s) == (9, 0.5)


@pytest.mark.parametrize(("limit", "sentence"), [("true", "expected a number, got true"), (".inf", "at most 1e+15")])
def test_a_value_within_a_value_is_held_to_the_same(tmp_path: Path, limit: str, sentence: str) -> None:
    """A limit of a load: true is no second, and without end is no limit that a record could hold."""
    lines = [line for line in _FILE.splitlines() if not line.startswith("workloads")]
    loads = f"workloads: [{{kind: closed, slo: {{ttft_s: {limit}}}}}]"
    (file := tmp_path / "mine.yaml").write_text("\n".join([*lines, loads]))

    with pytest.raises(UserError) as caught:
        config.load_suite(file)
    assert "slo.ttft_s: expected a number" in str(caught.value)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("rounds: true", "rounds: expected a number, got true"),
        ("rounds: yes", "rounds: "),
        ("rounds: 0777777", "rounds: must be at most 10000, got 777777"),
        ("timeout_s: .inf", "timeout_s: expected a number of at most 1e+15, got inf"),
        ("memory_limit_gib: 1e308", "memory_limit_gib: expected a number of at most 1e+15, got 1e+308"),
        ("settle_s: .nan", "settle_s: expected a number of at most 1e+15, got nan"),
        ("rounds: 2\nrounds: 5", "line 6: not valid YAML: the key 'rounds' is given twice"),
        ("seed: " + "[" * 20_000, "nested more than 64 deep"),
    ],
)
def test_a_value_is_what_it_says_or_is_refused(tmp_path: Path, change: str, sentence: str) -> None:
    """No truth value is a number, no number is without end, and no key is silently the last of two."""
    (file := tmp_path / "mine.yaml").write_text(f"{_FILE}{change}\n")

    with pytest.raises(UserError) as caught:
        config.load_suite(file)
    assert sentence in str(caught.value)
    assert len(str(caught.value)) < 300


def test_a_model_beside_its_suite_is_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path that is nothing in the folder you run in is one in the suite's; a Hub id stays one."""
    (folder := tmp_path / "suites").mkdir()
    (folder / "models" / "own").mkdir(parents=True)
    (file := folder / "mine.yaml").write_text(_FILE)
    monkeypatch.chdir(tmp_path)

    def source(model: str) -> str:
        return config.load_suite(file, [f"model={model}"]).model.source

    assert source("models/own") == source("{source: models/own}") == str(folder / "models" / "own")
    assert (source("owner/name"), source("models/demo")) == ("owner/name", "models/demo")
    monkeypatch.chdir(folder)
    assert source("models/own") == "models/own"


def test_numbers_with_a_zero_before_them_are_decimal(tmp_path: Path) -> None:
    """010 is ten, as in YAML 1.2, and not eight."""
    (file := tmp_path / "mine.yaml").write_text(f"{_FILE}rounds: 010\n")

    assert config.load_suite(file).rounds == 10


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("model: [", "line 2: not valid YAML"), ("- a", "expected 'key: value' lines"), ("", "expected 'key: value'")],
)
def test_a_broken_file_is_named(tmp_path: Path, text: str, sentence: str) -> None:
    """YAML that cannot be read says where."""
    file = tmp_path / "broken.yaml"
    file.write_text(text + "\n")

    with pytest.raises(UserError, match=r"broken\.yaml") as caught:
        config.load_suite(file)
    assert sentence in str(caught.value)


def test_every_shipped_suite_loads() -> None:
    """The suites and the named recipes in configs/ are valid."""
    assert [config.load_suite(file).name for file in config.suites()]
    assert [config.recipe_named(name).name for name in config.named_recipes()]


def test_the_schema_knows_plugins_and_their_options() -> None:
    """The JSON Schema offers each method with its own options and allows no other key."""
    text = schema.suite_schema()
    gptq = next(f for f in text["$defs"]["Step"]["anyOf"] if f["properties"]["method"]["const"] == "gptq")

    assert "group_size" in gptq["properties"]
    assert gptq["additionalProperties"] is False
    assert "name" not in text["required"]


def test_the_schema_tells_kinds_of_workloads_apart() -> None:
    """Each kind has its own fields alone, and says which it is; without a kind a load is offline."""
    whole = schema.suite_schema()
    loads = whole["$defs"]

    assert whole["properties"]["workloads"]["items"]["discriminator"]["mapping"]["closed"] == "#/$defs/Closed"
    assert "batch" in loads["Offline"]["properties"]
    assert "kind" not in loads["Offline"].get("required", [])
    assert "batch" not in loads["Closed"]["properties"]
    assert "kind" in loads["Closed"]["required"]
    assert loads["Closed"]["additionalProperties"] is False


def test_a_path_may_be_written_as_it_is(tmp_path: Path) -> None:
    """Options that name places get the prefix that keeps them out of records; a folder counts by content."""
    (tmp_path / "own.yaml").write_text("task: own")
    plain, marked = (
        config.options("eval.tasks", "lm_eval", {"tasks": "own", "include_path": text}, "task")
        for text in (str(tmp_path), f"path:{tmp_path}")
    )
    before = artifacts.file_options(plain)
    (tmp_path / "own.yaml").write_text("task: own # changed")

    assert plain == marked
    assert plain["include_path"] == f"path:{tmp_path}"
    assert artifacts.file_options(plain)["include_path"] != before["include_path"]
    assert str(tmp_path) not in str(before["include_path"])


def test_a_price_is_a_mapping_or_its_text() -> None:
    """Both are the same; without one there is none."""
    mapping = {"amount": 2.49, "currency": "USD", "what": "one H100, on demand"}
    api = {"input": 0.15, "output": 0.6, "currency": "USD", "what": "an API"}
    written = config.suite({**_SMALL, "price_per_hour": mapping, "api_price": api})
    as_text = config.suite(
        {**_SMALL, "price_per_hour": "2.49 USD one H100, on demand", "api_price": "0.15/0.6 USD an API"}
    )

    assert written.price_per_hour == as_text.price_per_hour == HourPrice(2.49, "USD", "one H100, on demand")
    assert written.api_price == as_text.api_price == ApiPrice(0.15, 0.6, "USD", "an API")
    assert config.suite(_SMALL).price_per_hour is None
