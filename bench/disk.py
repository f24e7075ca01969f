"""The two disks of every measurement: this machine's as it is, and one whose fsync takes 2 ms.

An fsync of 1 to 5 ms is usual on rented disks. Here a library makes it, which is preloaded into the servers that keep
the data and sleeps after each fsync. It needs a C compiler.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SLOW_US = 2000


@dataclass(frozen=True)
class Disk:
    """`env` is the environment of the servers that keep data on it."""

    name: str
    env: dict[str, str] = field(default_factory=dict)


AS_IT_IS = Disk("fsync as it is")


def disks(place: Path) -> Iterator[Disk]:
    """The disks that can be measured. `place` is a directory for the library."""
    yield AS_IT_IS
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        print("bench: the disk with a slow fsync is left out: it needs a C compiler (apt install gcc libc6-dev)")
        return
    library = place / "slow_fsync.so"
    source = Path(__file__).parent / "slow_fsync.c"
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    yield Disk(f"fsync {SLOW_US / 1000:g} ms", {"LD_PRELOAD": str(library), "BENCH_FSYNC_US": str(SLOW_US)})
