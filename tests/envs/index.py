"""A package index on loopback, whose wheels and source archives a test writes itself."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class Index:
    """The folder that is served: simple/<name>/index.html links to the files beside it; `url` is its root."""

    folder: Path
    url: str
    hashes: dict[str, str] = field(default_factory=dict)  # what the pages say of each file; "" where nothing

    def wheel(self, name: str, version: str = "1.0", requires: Sequence[str] = (), body: str = "") -> str:
        """Serve a wheel of one module with this body; returns its sha256, hex."""
        about, packed = f"{name}-{version}.dist-info", io.BytesIO()
        asks = "".join(f"Requires-Dist: {line}\n" for line in requires)
        with zipfile.ZipFile(packed, "w") as file:
            file.writestr(zipfile.ZipInfo(f"{name}.py"), body)
            metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{asks}"
            file.writestr(zipfile.ZipInfo(f"{about}/METADATA"), metadata)
            wheel = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
            file.writestr(zipfile.ZipInfo(f"{about}/WHEEL"), wheel)
            file.writestr(zipfile.ZipInfo(f"{about}/RECORD"), "")
        return self.serve(name, f"{name}-{version}-py3-none-any.whl", packed.getvalue())

    def source(self, name: str, setup: str) -> str:
        """Serve a source archive of version 1.0 with this setup.py; returns its sha256, hex."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            for path, text in {
                "setup.py": setup,
                f"{name}.py": "",
                "PKG-INFO": f"Name: {name}\nVersion: 1.0\n",
            }.items():
                entry = tarfile.TarInfo(f"{name}-1.0/{path}")
                entry.size = len(text)
                archive.addfile(entry, io.BytesIO(text.encode()))
        return self.serve(name, f"{name}-1.0.tar.gz", packed.getvalue())

    def serve(self, name: str, filename: str, content: bytes, says: str | None = None) -> str:
        """Serve a file under this name; its page says its hash, or `says`."""
        digest = hashlib.sha256(content).hexdigest()
        folder = self.folder / "simple" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / filename).write_bytes(content)
        self.hashes[filename] = digest if says is None else says
        links = (
            f'<a href="{file.name}{f"#sha256={said}" if (said := self.hashes[file.name]) else ""}">{file.name}</a>'
            for file in sorted(folder.iterdir())
            if file.name != "index.html"
        )
        (folder / "index.html").write_text(f"<!DOCTYPE html><html><body>{''.join(links)}</body></html>")
        return digest


@contextmanager
def served(folder: Path) -> Iterator[Index]:
    """An index that is served from an empty folder while the context lasts."""
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield Index(folder, f"http://127.0.0.1:{server.server_port}/simple")
        server.shutdown()
        thread.join()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the base class's word)
        """Say nothing."""
