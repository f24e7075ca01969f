"""Before each start of beanstalkd: puts back every kept file whose binlog file is gone."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def prepare(directory: Path, boot: str | None) -> Iterator[str]:
    """Does it, and yields a line for each thing done. `boot` is the machine's boot id. Raises OSError."""
    for kept in sorted(directory.glob("kept.*")):
        log = kept.with_name(kept.name.replace("kept.", "binlog."))
        if re.fullmatch(r"kept\.\d+", kept.name) and not log.exists():
            os.link(kept, log)
            yield f"{log} put back"
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
