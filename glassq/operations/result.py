"""What an operation did, delivery by delivery, and in all."""

from __future__ import annotations

import enum
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from glassq.errors import GlassqError


class Did(enum.StrEnum):
    """What was done with a delivery. NOTHING: it should have been; LEFT_OUT: it is as it should be already."""

    KICKED = "kicked"
    DELETED = "deleted"
    BURIED = "buried"
    MOVED = "moved"
    ARCHIVED = "archived"
    RESTORED = "restored"
    REPLAYED = "replayed"
    FORGOTTEN = "forgotten"
    LEFT_OUT = "left out"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one delivery, or of a part of the request. Nothing was done yet where it is `planned`.

    `id` is what the request named, `job` the reference of the job that holds the delivery from then on. `why` explains
    what was done, or why nothing was. A `general` result is about the request as a whole.
    """

    id: str
    job: str | None
    delivery: str | None
    did: Did
    why: str = ""
    planned: bool = False
    general: bool = False

    @property
    def words(self) -> str:
        """What was done, in words: "kicked", "would be kicked"."""
        return f"would be {self.did}" if self.planned else self.did.value

    def document(self) -> dict[str, Any]:
        """The result for JSON."""
        fields = {**asdict(self), "did": self.words}
        return {name: value for name, value in fields.items() if name not in ("planned", "general")}


@dataclass(frozen=True, slots=True)
class FailedAgain:
    """A delivery that was kicked and failed again: its id ("" where that is not known), its job's reference, why."""

    delivery: str
    job: str
    why: str

    @property
    def key(self) -> str:
        """What finds it."""
        return self.delivery or self.job

    def __str__(self) -> str:
        return f"{self.delivery or f'job {self.job}'}: {self.why}"


@dataclass(slots=True)
class Report:
    """What an operation came to. `words` are lines about the whole.

    `outcomes` are what deliveries that were kicked came to, as far as it was waited for, and `failed` those that failed
    again.

    `error` is what ended it early, if anything did: whoever carries it out shows the results first, then the error.
    """

    results: list[Result] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    failed: list[FailedAgain] = field(default_factory=list)
    error: GlassqError | None = None

    def count(self, did: Did) -> int:
        """With how many deliveries this was done, or would be."""
        return sum(result.did is did for result in self.results)

    def sums(self) -> dict[str, int]:
        """With how many deliveries what was done, in its words."""
        return dict(Counter(result.words for result in self.results if not result.general))

    def sum_words(self) -> str:
        """The sums in words: "198 kicked, 2 not done"."""
        return ", ".join(f"{count} {in_sentence(what)}" for what, count in self.sums().items())

    @property
    def complete(self) -> bool:
        """Whether all of the request was done."""
        return self.error is None and not self.count(Did.NOTHING)


def in_sentence(words: str) -> str:
    """A result's words as people read them; JSON says "nothing" where something was not done."""
    return "not done" if words == Did.NOTHING else words


def not_done(id_: str, why: str, *, job: str | None = None, delivery: str | None = None) -> Result:
    """The result where nothing was done, and why."""
    return Result(id_, job, delivery, Did.NOTHING, why)


def remark(about: str, why: str) -> Result:
    """The result where a part of the request was not done, whichever deliveries that concerns: printed "ABOUT: WHY"."""
    return Result(about, None, None, Did.NOTHING, why, general=True)


def documents(results: Iterable[Result]) -> list[dict[str, Any]]:
    """The results for JSON."""
    return [result.document() for result in results]
