"""A bundle brings records to another machine as they were, where they stand apart."""

from __future__ import annotations

import hashlib
import json
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from bench.contract.errors import UserError
from bench.publish import report
from bench.share import bundle, imports
from bench.store import Store
from tests.conftest import Command
from tests.share.conftest import SCORED, timed
from tests.test_store import HARDWARE


def test_a_bundle_names_each_file_with_its_hash(bundled: Path) -> None:
    """Records, what is beside them, the machine, its ceiling, and what their environments are installed from."""
    with zipfile.ZipFile(bundled) as archive:
        manifest = json.loads(archive.read("manifest.json"))
        hashes = {name: hashlib.sha256(archive.read(name)).hexdigest() for name in archive.namelist()}
    del hashes["manifest.json"]

    assert manifest["files"] == hashes
    assert (manifest["records"], manifest["suites"]) == (3, ["mine"])
    assert manifest["environments"].keys() == {"hf"}
    assert {
        "environments/hf.yaml",
        "environments/hf.txt",
        "environments/hashes/hf.txt",
        "results/cpu-x-2c-8gib/ceiling.json",
        "results/cpu-x-2c-8gib/machine.json",
        "results/cpu-x-2c-8gib/mine/serving/demo/gptq-4/hf/offline-b1-p128-n64/r0.traces.jsonl.gz",
        "results/cpu-x-2c-8gib/mine/quality/demo/gptq-4/hf/perplexity/r0.items.jsonl.gz",
    } <= hashes.keys()


def test_the_same_records_give_the_same_bytes(store: Store, bundled: Path, tmp_path: Path) -> None:
    """Whenever they are bundled."""
    again = tmp_path / "again.zip"
    bundle.write(store, again)

    assert again.read_bytes() == bundled.read_bytes()


def test_records_come_back_as_they_were_on_a_device_of_their_own(bundled: Path, store: Store, tmp_path: Path) -> None:
    """But for the device's name and the mark; requests, items, machine, ceiling and environments come with them."""
    (imported,) = imports.import_files([bundled], tmp_path / "theirs")
    records = Store(tmp_path / "theirs")
    moved = {record.cell.measurement + str(record.round): record for record in records.all()}

    slug = imported.folder.name
    assert slug == f"foreign-cpu-x-2c-8gib-{imported.source.id[:8]}"
    hardware = replace(HARDWARE, slug=slug)
    expected = [replace(each, hardware=hardware, marks=("busy", "foreign")) for each in (timed(), timed(1))]
    assert [moved["offline-b1-p128-n640"], moved["offline-b1-p128-n641"]] == expected
    assert moved["perplexity0"] == replace(SCORED, hardware=hardware, marks=("foreign",))
    assert records.problems == []
    assert records.traces(records.path(expected[0])) == store.traces(store.path(timed()))
    assert records.items(records.path(moved["perplexity0"])) == ({"task": "a", "item": 1},)
    assert records.ceiling(hardware) is not None
    assert json.loads((imported.folder / "machine.json").read_text())["slug"] == slug
    assert (imported.folder / "environments" / "hf.yaml").is_file()
    assert imported.source.records == 3


def test_a_name_can_be_given_and_several_devices_keep_theirs(store: Store, tmp_path: Path) -> None:
    """--as lab: foreign-lab; foreign-lab-DEVICE for each of several."""
    one, two = tmp_path / "one.zip", tmp_path / "two.zip"
    bundle.write(store, one)
    store.put(replace(timed(), hardware=replace(HARDWARE, slug="cpu-y")))
    bundle.write(store, two)

    assert [each.folder.name for each in imports.import_files([one], tmp_path / "a", "lab")] == ["foreign-lab"]
    several = imports.import_files([two], tmp_path / "b", "foreign-lab")
    assert [each.folder.name for each in several] == ["foreign-lab-cpu-x-2c-8gib", "foreign-lab-cpu-y"]
    assert {each.source.device: each.source.records for each in several} == {"cpu-x-2c-8gib": 3, "cpu-y": 1}


def test_what_is_bundled_can_be_chosen_and_imported_records_only_by_name(bundled: Path, store: Store) -> None:
    """By suite and device; what was imported is no record of this machine, and goes on under one name."""
    (imported,) = imports.import_files([bundled], store.root)
    file = bundled.with_name("other.zip")

    assert bundle.write(store, file).devices == ("cpu-x-2c-8gib",)
    manifest = bundle.write(store, file, ["min?"], "foreign-*")
    assert manifest.devices == (imported.folder.name,)
    (again,) = imports.import_files([file], store.root)
    assert again.folder.name.count("foreign-") == 1
    with pytest.raises(UserError, match=r"no records match --suite other in .*: run a suite first"):
        bundle.write(store, file, ["other"])


def test_tables_show_imported_records_apart(bundled: Path, store: Store) -> None:
    """A folder and a page of their own, each cell marked; the machine's own pages are as they were."""
    report.write(store.root)
    own = (store.root / "cpu-x-2c-8gib" / "TABLES.md").read_bytes()
    (imported,) = imports.import_files([bundled], store.root)
    report.write(store.root)

    assert (store.root / "cpu-x-2c-8gib" / "TABLES.md").read_bytes() == own
    page = (imported.folder / "TABLES.md").read_text()
    assert "foreign: imported: this machine has not measured it" in page
    assert imported.folder.name in (store.root / "README.md").read_text()
    assert report.stale(store.root) == []


def test_the_commands_say_what_they_did(store: Store, command: Command, tmp_path: Path) -> None:
    """The bundle's id, to compare with; the folder that its records went to."""
    file, root = str(tmp_path / "mine.zip"), str(store.root)
    wrote = command("bench", "bundle", file, "--results", root)
    read = command("bench", "import", file, "--as", "lab", "--results", root)
    again = command("bench", "import", file, "--results", root)

    assert (wrote.returncode, wrote.stderr) == (0, "")
    assert wrote.stdout.startswith(f"{file}: 3 records of mine; id ")
    assert (read.returncode, read.stdout) == (0, f"{root}/foreign-lab: 3 records of mine.zip\n")
    assert again.returncode == 2
    assert again.stderr == (
        f"error: {file} was imported already, as {root}/foreign-lab: remove that folder to import it again\n"
    )
