"""Watches the author's files for changes. It polls, because each system has its own interface for notifications."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Modification time in nanoseconds, size, inode.
Stamp = tuple[int, int, int]


class Watch:
    """Watches the settings file `config`, and the Python modules and packages beside it."""

    def __init__(self, config: Path) -> None:
        self._home = config.parent
        self._files = {config}
        self._seen = self._stamps()
        self._pending: set[Path] = set()

    def include(self, file: Path) -> None:
        """Also watches this file from now on."""
        if file not in self._files:
            self._files.add(file)
            if (stamp := _stamp(file)) is not None:
                self._seen[file] = stamp

    def changed(self) -> list[Path]:
        """The files that changed, appeared or vanished, once they have been stable between two calls.

        An editor may write a file in several steps, or several files at once.
        """
        now = self._stamps()
        fresh = {path for path in now.keys() | self._seen.keys() if now.get(path) != self._seen.get(path)}
        self._seen = now
        self._pending |= fresh
        if fresh or not self._pending:
            return []
        pending, self._pending = sorted(self._pending), set()
        return pending

    def _stamps(self) -> dict[Path, Stamp]:
        stamps = {path: _stamp(path) for path in (*self._files, *_modules(self._home))}
        return {path: stamp for path, stamp in stamps.items() if stamp is not None}


def _stamp(path: Path) -> Stamp | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _modules(directory: Path) -> Iterator[Path]:
    """Modules, including those of packages. Other directories are left out: they may hold any number of photos."""
    yield from directory.glob("*.py")
    for package in directory.glob("*/__init__.py"):
        yield from _modules(package.parent)
