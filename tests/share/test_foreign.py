"""What reads records for an answer about this machine leaves imported ones out, unless they are named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bench.contract.errors import UserError
from bench.contract.record import RequestTrace
from bench.foreign import is_selected
from bench.publish.compare.selectors import Filter, selections
from bench.publish.document import commands, query
from bench.publish.recommend import of_device
from bench.publish.records import gather
from bench.publish.tables import build
from bench.rows import load_results
from bench.run import recompute
from bench.share import bundle, imports
from bench.store import Store
from tests.share.conftest import timed

_RATES = {"output_tok_per_s": 5.0}
_TRACE = RequestTrace(0, 0, 128, 0.0, 0.0, tuple(1.0 + i for i in range(64)), (1,) * 64)


@pytest.fixture
def both(tmp_path: Path, cache: Path) -> Store:
    """A load of this machine with a TTFT that its requests do not give, and the same imported as foreign-lab."""
    assert cache.is_dir()
    store = Store(tmp_path / "results")
    store.put(replace(timed(), metrics={"ttft_s": 0.25, **_RATES}), [_TRACE])
    bundle.write(store, tmp_path / "b.zip")
    imports.import_files([tmp_path / "b.zip"], store.root, "lab")
    return store


def test_globs_mean_this_machines_devices_unless_they_begin_with_foreign() -> None:
    """A star is no name of what was imported."""
    assert [is_selected("cpu-x", glob) for glob in ("", "*", "cpu-*", "foreign-*")] == [True, True, True, False]
    assert [is_selected("foreign-x", glob) for glob in ("", "*", "f*", "foreign-*", "foreign-x")] == [
        *(False, False, False),
        *(True, True),
    ]


def test_a_recommendation_is_for_this_machine_or_the_one_that_is_named(both: Store) -> None:
    """Imported records do not make it two devices."""
    rows = build.build(both.all()).rows

    assert {row.device for row in of_device(rows, "mine", "")} == {"cpu-x-2c-8gib"}
    assert {row.device for row in of_device(rows, "mine", "foreign-lab")} == {"foreign-lab"}
    imported = [row for row in rows if row.device == "foreign-lab"]
    with pytest.raises(UserError, match="but imported ones: name them with --device, of foreign-lab"):
        of_device(imported, "mine", "")


def test_metrics_of_imported_records_are_computed_anew_by_name(both: Store) -> None:
    """They stay what their machine recorded."""
    assert len(list(recompute.recompute(both, ["ttft_s"]))) == 1
    by_device = {record.hardware.slug: record.metrics["ttft_s"] for record in both.all()}
    assert by_device == {"cpu-x-2c-8gib": 1.0, "foreign-lab": 0.25}
    assert len(list(recompute.recompute(both, ["ttft_s"], "foreign-lab"))) == 1


def test_documents_quote_imported_records_by_their_device(both: Store) -> None:
    """Any other path means this machine's; lists of suites and machines have only these."""
    records = gather(both.all())

    assert len(query.rows(records, "mine/*/*")) == 1
    assert [row.device for row in query.rows(records, "foreign-lab:mine/*/*")] == ["foreign-lab"]
    assert commands.write("value mine/gptq-4/hf/offline-* ttft_s", records) == "250 ms"
    assert commands.write("value foreign-lab:mine/gptq-4/hf/offline-* ttft_s", records) == "250 ms"
    for command in ("suites", "machines", "versions"):
        assert "foreign" not in commands.write(command, records)
    assert commands.write("machines", records).count("\n") == 0


def test_rows_for_a_notebook_are_this_machines(both: Store) -> None:
    """Or those of the devices that are named."""
    assert {row["device"] for row in load_results(both.root)} == {"cpu-x-2c-8gib"}
    assert {row["device"] for row in load_results(both.root, "foreign-*")} == {"foreign-lab"}


def test_comparisons_have_imported_records_where_a_selector_names_their_device(both: Store) -> None:
    """Of recipes and engines only this machine's; of two devices what both have."""
    other = replace(timed().cell, recipe=replace(timed().cell.recipe, name="other"))
    both.put(replace(timed(), cell=other))
    one, two = selections("gptq-4", "other", both.root, Filter())
    assert {record.hardware.slug for record in (*one.records, *two.records)} == {"cpu-x-2c-8gib"}
    one, two = selections("cpu-x-2c-8gib", "foreign-lab", both.root, Filter())
    assert {record.hardware.slug for record in two.records} == {"foreign-lab"}
    one, _ = selections("gptq-4", "other", both.root, Filter(device="foreign-*"))
    assert {record.hardware.slug for record in one.records} == {"foreign-lab"}


def test_hidden_folders_have_no_records(both: Store) -> None:
    """What an import has not finished is none."""
    (both.root / "foreign-lab").rename(both.root / ".import-x")
    assert {record.hardware.slug for record in both.all()} == {"cpu-x-2c-8gib"}
