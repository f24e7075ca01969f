"""What one check came to."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@dataclass(frozen=True, slots=True)
class Check:
    """What one check came to.

    `ok` is False where something is wrong, and None where nothing is, but an operator should know. `said` is what was
    seen, `todo` what to do about it; a command of ours stands there as `glassq ...`, in backquotes. `code` is the exit
    code that it stands for when it is wrong.
    """

    name: str
    ok: bool | None
    said: str
    todo: str = ""
    code: int = 1

    def __str__(self) -> str:
        return f"{self.said}: {self.todo}" if self.todo else self.said


def document(checks: Sequence[Check], adapt: Callable[[str], str]) -> dict[str, Any]:
    """What checks came to, for JSON; `adapt` makes of a command of ours what is typed."""
    rows = [{**asdict(check), "said": adapt(check.said), "todo": adapt(check.todo)} for check in checks]
    for row in rows:
        del row["code"]
    return {"ok": all(check.ok is not False for check in checks), "checks": rows}
