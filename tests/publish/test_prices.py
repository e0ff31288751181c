"""Where prices come from, which counts, and what is wrong with one; the commands that show them record nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bench.contract.errors import UserError
from bench.contract.spec import ApiPrice, HourPrice
from bench.publish import prices
from bench.store import Store
from bench.suite import config
from tests.conftest import Command
from tests.publish.tables.test_price import _measured

_GIVEN = "2 USD given"
_SUITE = config.suite(
    {
        "name": "demo",
        "model": "m",
        "engines": ["fake"],
        "recipes": ["fp32"],
        "workloads": [{"batch": 1}],
        "price_per_hour": "4 USD the suite's",
    }
)


def _file(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / prices.FILE).write_text(text)
    return folder


def test_the_commands_price_counts_before_the_devices_and_that_before_the_suites(tmp_path: Path) -> None:
    """And where nobody gave one there is none."""
    folder = _file(tmp_path, "gpu-x: 3 USD the device's\ngpu-y: {amount: 5, currency: EUR, what: another}\n")
    read = prices.read(folder, suite=_SUITE)

    assert read.hour("gpu-x", "demo") == HourPrice(3, "USD", "the device's")
    assert read.hour("gpu-y", "demo") == HourPrice(5, "EUR", "another")
    assert read.hour("gpu-z", "demo") == HourPrice(4, "USD", "the suite's")
    assert read.hour("gpu-z", "another suite") is None
    given = prices.read(folder, _GIVEN, suite=_SUITE)
    assert given.hour("gpu-x", "demo") == HourPrice(2, "USD", "given")
    assert given.hour("foreign-lab", "demo") is None
    given.require_one_machine(["gpu-x", "foreign-lab"])
    assert prices.read(tmp_path / "nowhere", api="1/2 USD api").api("demo") == ApiPrice(1, 2, "USD", "api")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("gpu-x: 3", "prices.yaml: gpu-x: invalid price of an hour '3': expected 'AMOUNT CURRENCY WHAT'"),
        ("gpu-x:", "prices.yaml: gpu-x: expected a price"),
        ("gpu-x: {amount: -1, currency: USD, what: x}", "prices.yaml: gpu-x: amount must be above 0"),
        ("gpu-x: {amount: .inf, currency: USD, what: x}", "prices.yaml: gpu-x: amount must be above 0 and at most"),
        ("gpu-x: {amount: .nan, currency: USD, what: x}", "prices.yaml: gpu-x: amount must be above 0 and at most"),
        ("gpu-x: {amount: 1, curency: USD, what: x}", "prices.yaml: gpu-x"),
        ("- 3 USD x", "prices.yaml: expected 'key: value' lines"),
        ("", "prices.yaml: expected 'key: value' lines"),
        ("gpu-x: [", "prices.yaml line 1: not valid YAML"),
        ("gpu-x: 1 USD x\ngpu-x: 2 USD y\n", "the key 'gpu-x' is given twice"),
    ],
)
def test_a_wrong_file_is_one_sentence_with_its_place(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        prices.read(_file(tmp_path, text))

    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    """A folder of that name, and bytes that are no text."""
    (tmp_path / "a" / prices.FILE).mkdir(parents=True)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / prices.FILE).write_bytes(b"\xff\xfe\x00")
    for folder in (tmp_path / "a", tmp_path / "b"):
        with pytest.raises(UserError, match=r"prices\.yaml cannot be read"):
            prices.read(folder)


@pytest.mark.parametrize(
    "price", ["2.49", "USD 2.49 x", "2,49 EUR x", "2.49 usd x", "2.49 USD", "-1 USD x", "nan USD x"]
)
def test_a_wrong_price_of_the_command_is_one_sentence(tmp_path: Path, price: str) -> None:
    """With the form that is expected."""
    with pytest.raises(UserError, match=r"--price: invalid price of an hour .* expected 'AMOUNT CURRENCY WHAT', as"):
        prices.read(tmp_path, price)
    with pytest.raises(UserError, match=r"--api-price: invalid price of an API .* expected 'INPUT/OUTPUT CURRENCY WHA"):
        prices.read(tmp_path, api=price)


def test_two_currencies_are_not_compared(tmp_path: Path) -> None:
    """The machine's and the API's, whoever gave them."""
    for folder, price, suite in (
        (tmp_path, "2 EUR x", None),
        (_file(tmp_path / "file", "gpu-x: 2 EUR x"), "", None),
        (tmp_path, "", replace(_SUITE, price_per_hour=HourPrice(2, "EUR", "x"))),
    ):
        with pytest.raises(UserError, match="priced in EUR and the API in USD: give both in one currency"):
            prices.read(folder, price, "1/2 USD api", suite)


def test_a_device_without_records_is_named(tmp_path: Path) -> None:
    """With the folder that its name may mean."""
    (tmp_path / "gpu-nvidia-l4-24gib").mkdir()
    read = prices.read(_file(tmp_path, "gpu-nvidia-l4-24gb: 1 USD x\n"))

    assert [problem.partition("prices.yaml: ")[2] for problem in read.problems] == [
        "no records of the device gpu-nvidia-l4-24gb: did you mean 'gpu-nvidia-l4-24gib'?"
    ]


def test_commands_show_prices_and_records_stay_as_they_are(command: Command, tmp_path: Path) -> None:
    """Tables, reports and recommendations by --price and by prices.yaml; a wrong one is exit code 2."""
    folder = tmp_path / "results"
    store = Store(folder)
    slow = [replace(r, hardware=replace(r.hardware, slug="other-device")) for r in _measured("baseline", [400.0])]
    paths = [store.put(replace(r, suite="mine")) for r in (*_measured("baseline", [100.0]), *slow)]
    before = [path.read_bytes() for path in paths]
    words = ("--results", str(folder))
    recommend = ("bench", "recommend", "--suite", "mine", "--objective", "price", *words)
    several = command("bench", "table", "--price", _GIVEN, *words)
    no_price = command(*recommend)
    (folder / prices.FILE).write_text("cpu-x-2c-8gib: 0.36 USD small\nother-device: 7.2 USD large\n")
    table = command("bench", "table", "--format", "md", *words)
    pick = command(*recommend, "--json")
    text = command(*recommend)
    one = command(*recommend, "--device", "other-device", "--price", _GIVEN)
    report = command("bench", "report", *words)
    wrong = command("bench", "table", "--price", "cheap", *words)

    assert (several.returncode, no_price.returncode, wrong.returncode) == (2, 2, 2)
    assert several.stderr.startswith("error: --price is of one machine")
    assert no_price.stderr.startswith("error: no price of a machine is given: give --price 'AMOUNT CURRENCY WHAT'")
    assert wrong.stderr.startswith("error: --price: invalid price of an hour 'cheap'")
    assert "USD 1.00" in table.stdout  # 0.0001 USD a second, 10,000 s
    assert json.loads(pick.stdout)["pick"] == {"recipe": "baseline", "engine": "hf", "machine": "cpu-x-2c-8gib"}
    assert "given and not measured" in text.stdout
    assert "other-device" in text.stdout
    assert "USD 1.39" in one.stdout
    assert report.returncode == 0
    assert "USD 5.00" in (folder / "other-device" / "TABLES.md").read_text()
    assert "USD 5.00" in (folder / "report.html").read_text()
    assert [path.read_bytes() for path in paths] == before


def test_the_price_in_a_suites_file_is_that_of_its_records(tmp_path: Path) -> None:
    """By the file, as `recommend --suite mine.yaml` names it; a wrong price there is one sentence with its place."""
    file = tmp_path / "mine.yaml"
    file.write_text("price_per_hour: 7 USD the file's\n")

    assert prices.read(tmp_path / "results", suite=file).hour("gpu-x", "mine") == HourPrice(7, "USD", "the file's")
    assert prices.read(tmp_path / "results", suite=tmp_path / "none").hour("gpu-x", "mine") is None
    file.write_text("price_per_hour: 7\n")
    with pytest.raises(UserError, match=r"mine\.yaml: price_per_hour: invalid price of an hour '7'"):
        prices.read(tmp_path / "results", suite=file)


def test_no_digest_depends_on_a_price(command: Command, tmp_path: Path) -> None:
    """What ran without one is recorded with one, and with another; `run` prints what its tokens cost."""
    first = command("bench", "run", "configs/smoke.yaml", "--only", "*offline*", "-q")
    words = ("--set", "price_per_hour=3 USD a machine", "--set", "api_price=1/2 USD an API")
    again = command("bench", "run", "configs/smoke.yaml", "--only", "*offline*", *words)
    other = command("bench", "plan", "configs/smoke.yaml", "--only", "*offline*", "--set", "price_per_hour=4 USD x")
    records = "".join(path.read_text() for path in (tmp_path / "results").rglob("*.json"))

    assert (first.returncode, again.returncode) == (0, 0)
    assert "price" not in first.stdout + records
    assert "nothing left to run" in again.stderr
    assert "3 USD an hour for a machine, given and not measured" in " ".join(again.stdout.split())
    assert "break-even" in again.stdout
    assert ": 0 to run" in other.stdout
    assert "input_tok_per_s" in records
