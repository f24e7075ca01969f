"""The files of static/: each has its content's hash in its name, so that a browser may keep it for ever."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path
from typing import NamedTuple

_STATIC = Path(__file__).parent / "static"
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}


class Asset(NamedTuple):
    """A file as it is served."""

    data: bytes
    zipped: bytes
    content_type: str


class Assets:
    """All of them, in memory."""

    def __init__(self, directory: Path = _STATIC) -> None:
        self._paths: dict[str, str] = {}
        self._served: dict[str, Asset] = {}
        for file in sorted(directory.iterdir()):
            if file.suffix not in _TYPES:
                continue
            data = file.read_bytes()
            name = f"{file.stem}.{hashlib.sha256(data).hexdigest()[:10]}{file.suffix}"
            self._paths[file.name] = f"/static/{name}"
            self._served[name] = Asset(data, gzip.compress(data, mtime=0), _TYPES[file.suffix])

    def path(self, name: str) -> str:
        """The path of a file of static/. Raises KeyError where there is none."""
        return self._paths[name]

    def get(self, name: str) -> Asset | None:
        """The file that is served by this name."""
        return self._served.get(name)

    def named(self, name: str) -> Asset:
        """The file that static/ has by this name. Raises KeyError."""
        return self._served[self._paths[name].rpartition("/")[2]]
