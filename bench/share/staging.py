"""Devices that are imported: written where no reader looks, and moved among the results once all are whole."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from bench import paths
from bench.contract import wire
from bench.contract.errors import UserError
from bench.contract.record import Result
from bench.foreign import PREFIX
from bench.store import Store, attachment_of, safe_name

SOURCE = "source.json"  # in the folder of an imported device: where it is from
_HIDDEN = ".import-"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=-]{0,59}")


@dataclass(frozen=True)
class Source:
    """Where an imported device's records are from. `id`: the bundle's, or a hash of another tool's files."""

    id: str
    kind: str
    files: tuple[str, ...]
    device: str
    records: int
    imported: str
    notes: tuple[str, ...] = ()


class Staging:
    """A hidden folder of the results, in which the devices of one import are put together."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.root, self.folder = root, folder
        self._store = Store(folder)

    def put_record(self, result: Result, text: str) -> Path:
        """Write a record's text at its place."""
        path = self._store.path(result)
        self.put_file(path.relative_to(self.folder).as_posix(), text.encode())
        return path

    def put_machine(self, result: Result) -> None:
        """Describe the device of a record."""
        self._store.put_machine(result.hardware)

    def put_source(self, slug: str, source: Source) -> None:
        self.put_file(f"{safe_name(slug)}/{SOURCE}", (wire.dumps(source, indent=1) + "\n").encode())

    def put_file(self, name: str, data: bytes) -> None:
        """Write a file below the folder; `name` is one that this program has composed."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # a folder that is there is whole, whenever the power fails

    def check_attached(self, paths: Sequence[Path]) -> None:
        """UserError where the requests or items beside a record are damaged, or another record's."""
        for path in paths:
            if attachment_of(path, "traces").exists():
                self._store.traces(path)
            if attachment_of(path, "items").exists():
                self._store.items(path)

    def commit(self) -> list[Path]:
        """Move the devices among the results, all or none, and give their folders; UserError where one is there."""
        devices = sorted(path for path in self.folder.iterdir() if path.is_dir())
        for device in devices:
            if (target := self.root / device.name).exists():
                raise UserError(f"{target} is there already: choose another name with --as, or remove that folder")
        moved: list[Path] = []
        try:
            for device in devices:
                device.rename(self.root / device.name)
                moved.append(self.root / device.name)
        except BaseException:
            for path in moved:
                shutil.rmtree(path, ignore_errors=True)
            raise
        return moved


@contextmanager
def staging(root: Path) -> Iterator[Staging]:
    """A folder for one import, removed at its end with what was not committed; one import at a time."""
    root.mkdir(parents=True, exist_ok=True)
    lock = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:16]
    with FileLock(paths.cache_folder("locks") / f"import-{lock}.lock"):
        for left in root.glob(f"{_HIDDEN}*"):  # by an import that was killed
            shutil.rmtree(left, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix=_HIDDEN, dir=root))
        try:
            yield Staging(root, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def slug(name: str, default: str, device: str = "") -> str:
    """The name of an imported device: of `name` if given, and of which `device` where there are several."""
    if name and not _NAME.fullmatch(name):
        raise UserError(f"invalid name '{name}': expected up to 60 letters, digits and . _ + = -, as --as lab")
    base = "-".join(filter(None, (name.removeprefix(PREFIX), device))) if name else default
    return PREFIX + base.removeprefix(PREFIX)


def require_new(root: Path, source_id: str, file: Path) -> None:
    """UserError where the results have an import of the same content."""
    for path in sorted(root.glob(f"{PREFIX}*/{SOURCE}")):
        try:
            known = wire.read_json(path)
        except (OSError, ValueError):
            continue
        if isinstance(known, dict) and known.get("id") == source_id:
            raise UserError(f"{file} was imported already, as {path.parent}: remove that folder to import it again")
