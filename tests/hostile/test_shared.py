"""Bundles and files of strangers: each ends in a value or a sentence, and then nothing of it is in the results."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import stat
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from bench.contract import wire
from bench.contract.errors import UserError
from bench.publish.tables import build, render
from bench.share import archive, bundle, imports
from bench.store import Store
from tests.hostile.strategies import changed, dumps, examples, only_user_errors, spliced
from tests.share.conftest import timed
from tests.test_store import TRACES

_RECORD = "results/cpu-x-2c-8gib/mine/serving/demo/gptq-4/hf/offline-b1-p128-n64/r0.json"
_TRACES = _RECORD.replace(".json", ".traces.jsonl.gz")
_FILES = Path(__file__).parents[1] / "share" / "files"
Members = dict[str, bytes]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A bundle with a record and its requests."""
    folder = tmp_path_factory.mktemp("sound")
    store = Store(folder / "results")
    store.put(timed(), TRACES)
    bundle.write(store, folder / "b.zip")
    return (folder / "b.zip").read_bytes()


@pytest.fixture
def root(tmp_path: Path, cache: Path) -> Path:
    """Results with a record of this machine."""
    assert cache.is_dir()
    Store(tmp_path / "results").put(timed(1))
    return tmp_path / "results"


_NO_FILES: dict[str, Callable[[Path], None]] = {
    "pipe": os.mkfifo,
    "folder": Path.mkdir,
    "circle": lambda path: path.symlink_to(path.name),
}


def _members(data: bytes) -> Members:
    with zipfile.ZipFile(io.BytesIO(data)) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


def _packed(members: Members, *, seal: bool = True, links: tuple[str, ...] = ()) -> bytes:
    """A zip file of the members; `seal`: with a manifest that has their hashes, as one who forges it would."""
    if seal:
        manifest = json.loads(members["manifest.json"])
        files = {n: hashlib.sha256(data).hexdigest() for n, data in members.items() if n != "manifest.json"}
        manifest |= {"files": files, "id": wire.digest(files)}
        members = {**members, "manifest.json": json.dumps(manifest).encode()}
    with zipfile.ZipFile(out := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in members.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (stat.S_IFLNK if name in links else stat.S_IFREG) << 16
            packed.writestr(info, data, zipfile.ZIP_DEFLATED)
    return out.getvalue()


def _state(root: Path) -> list[tuple[str, bytes]]:
    """Every file below the results and beside them."""
    return [(str(path), path.read_bytes()) for path in sorted(root.parent.rglob("*")) if path.is_file()]


def _refused(root: Path, data: bytes, sentence: str, name: str = "b.zip") -> None:
    """The import ends in that sentence, and leaves every file as it was."""
    (file := root.parent / name).write_bytes(data)
    before = [each for each in _state(root) if "/cache/" not in each[0]]
    with pytest.raises(UserError, match=sentence) as refusal:
        imports.import_files([file], root)
    assert "\n" not in str(refusal.value)
    assert [each for each in _state(root) if "/cache/" not in each[0]] == before


@pytest.mark.parametrize("length", [4, 100, 0.5, 0.99])
def test_a_bundle_that_was_cut_short_is_named(root: Path, sound: bytes, length: float) -> None:
    """Wherever it ends."""
    end = int(length if length > 1 else length * len(sound))
    _refused(
        root, sound[:end], r"b\.zip is a bundle that was cut short or changed: get it again .*nothing was imported"
    )


def test_a_changed_file_is_named(root: Path, sound: bytes) -> None:
    """A figure that was edited, with the manifest as it was; or requests; or the manifest's own list."""
    members = _members(sound)
    edited = members[_RECORD].replace(b'"ttft_s": 0.25', b'"ttft_s": 0.05')
    assert edited != members[_RECORD]
    _refused(root, _packed({**members, _RECORD: edited}, seal=False), rf"b\.zip: {_RECORD} was changed after")
    _refused(root, _packed({**members, _TRACES: b"x"}, seal=False), rf"b\.zip: {_TRACES} was changed after")
    manifest = members["manifest.json"].replace(b'"id": "', b'"id": "f')
    _refused(root, _packed({**members, "manifest.json": manifest}, seal=False), r"manifest\.json was changed after")
    del members[_TRACES]
    _refused(root, _packed(members, seal=False), rf"b\.zip lacks {_TRACES}, which its manifest lists")


def test_bytes_that_were_changed_within_the_archive_are_named(root: Path, sound: bytes) -> None:
    """The zip file's own checksum sees them first."""
    with zipfile.ZipFile(io.BytesIO(sound)) as opened:
        at = opened.getinfo(_RECORD).header_offset + len(_RECORD) + 60
    data = sound[:at] + bytes([sound[at] ^ 0xFF]) + sound[at + 1 :]
    _refused(root, data, rf"b\.zip: {_RECORD} (is damaged|was changed)")


@pytest.mark.parametrize(
    "name",
    [
        "../../evil.json",
        "/etc/evil.json",
        "results/../evil/r0.json",
        "results/cpu-x-2c-8gib/../../r0.json",
        "results\\cpu\\r0.json",
        "results/.hidden/mine/serving/demo/a/b/c/r0.json",
        "environments/../../evil.yaml",
        "environments/r0.json",
        "results/cpu-x-2c-8gib/TABLES.md",
        "evil.sh",
        "results/cpu-x-2c-8gib/machine.json/",
    ],
)
def test_a_name_that_leads_elsewhere_is_refused(root: Path, sound: bytes, name: str) -> None:
    """Even where the manifest lists it."""
    data = _packed({**_members(sound), name: b"{}"})
    _refused(root, data, r"b\.zip: .* is no file of a bundle")
    assert not list(root.parent.rglob("evil*"))


def test_links_and_doubles_are_refused(root: Path, sound: bytes) -> None:
    """A symbolic link in place of a record, and a name that stands for two."""
    members = _members(sound)
    _refused(root, _packed({**members, _RECORD: b"/etc/passwd"}, links=(_RECORD,)), r"is a link or no regular file")
    with zipfile.ZipFile(out := io.BytesIO(), "w") as packed:
        for name, data in (*members.items(), (_RECORD, b"{}")):
            with warnings.catch_warnings(action="ignore"):
                packed.writestr(name, data)
    _refused(root, out.getvalue(), rf"b\.zip has {_RECORD} twice")


def test_what_unpacks_to_more_than_records_take_is_refused(
    root: Path, sound: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the sizes that it states, and where it states less than it holds."""
    monkeypatch.setattr(archive, "MAX_UNPACKED", 1 << 20)
    monkeypatch.setattr(archive, "MAX_BYTES", 1 << 19)
    members = _members(sound)
    small = {n: d for n, d in members.items() if not n.startswith("environments/")}
    bomb = _packed({**small, _TRACES: bytes(1 << 21)})
    assert len(bomb) < 1 << 14
    _refused(root, bomb, r"unpacks to more than .*, which no bundle does: get it again")
    _refused(root, _packed({**small, _TRACES: bytes((1 << 19) + 1)}), r"unpacks to more than")
    size = (1 << 21).to_bytes(4, "little")
    assert bomb.count(size) == 2  # beside the file and in the archive's list
    lying = bomb.replace(size, (100).to_bytes(4, "little"))
    _refused(root, lying, r"is damaged|unpacks to more than|was changed")
    monkeypatch.setattr(archive, "MAX_MEMBERS", 2)
    _refused(root, sound, r"unpacks to more than")


def test_a_bundle_as_large_as_one_may_be_is_imported(root: Path, sound: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its files are hashed and then read; each counts once."""
    monkeypatch.setattr(archive, "MAX_UNPACKED", sum(map(len, _members(sound).values())))
    (file := root.parent / "b.zip").write_bytes(sound)

    assert len(imports.import_files([file], root)) == 1


def test_requests_that_unpack_to_more_than_they_may_are_refused(root: Path, sound: bytes) -> None:
    """What is packed twice is no way around the limit: requests are read before they are imported."""
    data = _packed({**_members(sound), _TRACES: gzip.compress(bytes(1 << 20))})
    _refused(root, data, r"b\.zip: .*r0\.traces\.jsonl\.gz is damaged")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"version": 2}, "is a bundle of version 2, this version reads 1: import it with its own"),
        ({"version": None}, "is a bundle of version None"),
        ({"schema": 9}, "is a bundle of records of schema 9, this version reads 1"),
        ({"format": "else"}, r"is a zip file and no bundle of `bench bundle`: its manifest\.json does not say so"),
        ({"files": []}, r"manifest\.json is damaged \(files: "),
        ({"records": "many"}, r"manifest\.json is damaged \(records: "),
    ],
)
def test_another_version_is_told(root: Path, sound: bytes, change: dict[str, Any], sentence: str) -> None:
    """A later one, or a manifest that is none."""
    members = _members(sound)
    manifest = {**json.loads(members["manifest.json"]), **change}
    _refused(root, _packed({**members, "manifest.json": json.dumps(manifest).encode()}, seal=False), sentence)


def test_a_forged_record_is_refused_as_one_on_disk_is(root: Path, sound: bytes) -> None:
    """With hashes that fit: figures that cannot be, another cell's record, a schema of later, no record."""
    members = _members(sound)

    def forged(change: Callable[[dict[str, Any]], Any]) -> bytes:
        record = json.loads(members[_RECORD])
        change(record)
        return _packed({**members, _RECORD: json.dumps(record).encode()})

    _refused(
        root, forged(lambda r: r["metrics"].update(ttft_s=-1)), r"figures that cannot be: ttft_s is -1.*nothing was"
    )
    _refused(root, forged(lambda r: r["cell"]["recipe"].update(name="other")), r"is the record of another cell")
    _refused(root, forged(lambda r: r["hardware"].update(slug="../x")), r"is the record of another cell")
    _refused(root, forged(lambda r: r.update(schema=7)), r"it has schema 7, this version reads 1; nothing was")
    _refused(root, forged(lambda r: r.update(digest="other")), r"r0\.traces\.jsonl\.gz belongs to another record")
    _refused(root, _packed({**members, _RECORD: b"[" * 9999}), r"is not a record")


def test_an_import_over_what_is_there_is_refused(root: Path, sound: bytes) -> None:
    """The same bundle again, under another name too; another one of a name that is taken."""
    (file := root.parent / "b.zip").write_bytes(sound)
    imports.import_files([file], root, "lab")
    before = _state(root)
    for name in ("", "lab", "else"):
        with pytest.raises(UserError, match=r"was imported already, as .*/foreign-lab: remove that folder"):
            imports.import_files([file], root, name)
    members = _members(sound)
    del members[_TRACES]
    file.write_bytes(_packed(members))
    with pytest.raises(UserError, match=r"foreign-lab is there already: choose another name with --as, or remove"):
        imports.import_files([file], root, "lab")
    file.write_bytes(sound)
    assert _state(root) == before


@pytest.mark.parametrize("name", ["../x", "a/b", ".", " ", "x" * 99, "-x", "a\nb"])
def test_a_name_that_is_none_is_refused(root: Path, sound: bytes, name: str) -> None:
    """It is a part of a path."""
    (root.parent / "b.zip").write_bytes(sound)
    with pytest.raises(UserError, match=r"invalid name '"):
        imports.import_files([root.parent / "b.zip"], root, name)


@pytest.mark.parametrize("kind", ["pipe", "folder", "circle", "nothing"])
def test_what_is_no_file_is_a_sentence(root: Path, kind: str) -> None:
    """And nobody waits for it."""
    path = root.parent / "x"
    if kind != "nothing":
        _NO_FILES[kind](path)
    with pytest.raises(UserError, match=r"x (does not exist|cannot be read: )"):
        imports.import_files([path], root)


def test_an_import_that_was_killed_leaves_nothing_that_counts(root: Path, sound: bytes) -> None:
    """The next one clears it away."""
    left = root / ".import-dead" / "foreign-x" / "mine" / "serving"
    left.mkdir(parents=True)
    (left / "r0.json").write_text("{}")
    (root.parent / "b.zip").write_bytes(sound)
    store = Store(root)
    assert len(list(store.all())) == 1
    assert store.problems == []
    imports.import_files([root.parent / "b.zip"], root)
    assert sorted(path.name[:8] for path in root.iterdir()) == ["cpu-x-2c", "foreign-"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "null",
        "[]",
        "{}",
        "[1]",
        '{"results": 1}',
        "[" * 9999,
        "\ufeff{}",
        "hello",
        '{"a": NaN}',
        '["\\ud800"]',
    ],
)
def test_json_of_no_tool_is_a_sentence(root: Path, text: str) -> None:
    """It says which tools are known."""
    _refused(root, text.encode(), r"x\.json is (neither a bundle nor JSON|JSON of none).*vllm-bench", "x.json")


@pytest.mark.parametrize("name", sorted(path.name for path in _FILES.glob("*.json")))
def test_a_tools_file_that_was_changed_ends_in_a_sentence_or_in_records(
    name: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever was replaced, dropped or added in it: what is imported is read again and tabled."""
    folder = tmp_path_factory.mktemp("changed")
    monkeypatch.setenv("LLM_BENCH_CACHE", str(folder / "cache"))

    @examples(25)
    @given(changed(_shortened(json.loads((_FILES / name).read_text()))))
    def check(value: Any) -> None:
        (folder / "x.json").write_text(dumps(value), errors="surrogatepass")
        only_user_errors(lambda: _import_and_table(folder))
        for device in (folder / "results").glob("*"):
            shutil.rmtree(device)

    check()


def _shortened(value: Any) -> Any:
    """Without the requests, of which a reader takes nothing, so that changes meet what it does."""
    if isinstance(value, dict):
        left_out = ("requests", "text", "pdf", "configs", "pretty_env_info", "itls", "generated_texts")
        return {key: {} if key in left_out else _shortened(its) for key, its in value.items()}
    return [_shortened(each) for each in value[:3]] if isinstance(value, list) else value


def _import_and_table(folder: Path) -> None:
    imports.import_files([folder / "x.json"], folder / "results")
    store = Store(folder / "results")
    render.render(build.build(store.all()), "md")
    assert store.problems == []


def test_any_bytes_in_a_bundle_end_in_a_sentence_or_whole(
    sound: bytes, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever was overwritten, cut out, doubled or cut off: no partial device is left."""
    folder = tmp_path_factory.mktemp("spliced")
    monkeypatch.setenv("LLM_BENCH_CACHE", str(folder / "cache"))

    @examples(60)
    @given(spliced(sound))
    def check(data: bytes) -> None:
        (folder / "b.zip").write_bytes(data)
        only_user_errors(lambda: imports.import_files([folder / "b.zip"], folder / "results"))
        for device in (folder / "results").glob("*"):
            assert len(list(device.rglob("r0.*"))) == 2
            assert device.name.startswith("foreign-")
            shutil.rmtree(device)

    check()
