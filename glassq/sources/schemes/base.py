"""What a scheme gets from the settings, and what it makes of that: a function that verifies one ping."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeVar

import msgspec

from glassq.errors import PingRefused, SourceUnready
from glassq.settings import SourceSettings
from glassq.sources.base import HeadRequest, HookRequest, Proof

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

T = TypeVar("T")
# Raises PingRefused, and SourceUnready.
Verify = Callable[[HookRequest], Proof]


class Documents(Protocol):
    """Where certificates and keys come from: `glassq.sources.fetched_keys.FetchedKeys`."""

    def get(self, url: str, read: Callable[[bytes], T], suits: Callable[[T], bool] = ...) -> T:
        """What `read` makes of the document at `url`. Raises SourceUnready where it is not here yet."""


class NoDocuments:
    """Fetches nothing: for kinds that need nothing, and for checks."""

    def get(self, url: str, read: Callable[[bytes], T], suits: Callable[[T], bool] = lambda _: True) -> T:
        """Raises SourceUnready."""
        raise SourceUnready("nothing is fetched here")


class SchemeConfig(msgspec.Struct, frozen=True):
    """What a section of the settings gives to its scheme.

    `secrets` are the lines of its secrets file, `url` our public URL before the path ("" if it does not say),
    `tolerance` how far a signed time may be off, in seconds (None: as far as it likes), `section` the section itself.
    `documents` fetches certificates and keys, for schemes that need them.
    """

    secrets: tuple[str, ...] = ()
    url: str = ""
    tolerance: float | None = None
    section: SourceSettings = SourceSettings()
    documents: Documents = NoDocuments()


# The old name, for classes of `custom` sources; to be removed after one release.
Given = SchemeConfig


class Scheme(Protocol):
    """A way to prove a ping: a frozen struct of parameters."""

    @property
    def needs(self) -> tuple[str, ...]:
        """The keys of the section that it cannot do without."""

    @property
    def may(self) -> tuple[str, ...]:
        """The keys that it takes beside them."""

    @property
    def signs_time(self) -> bool:
        """Whether the sender signs a time, which `tolerance` then is about."""

    def prepare(self, given: SchemeConfig) -> Verify:
        """The function that verifies a ping; all that can be computed before is. Raises UnusableKey."""


class UnusableKey(ValueError):
    """A key of the section cannot be used. `why` starts with a verb, and quotes no secret."""

    def __init__(self, key: str, why: str) -> None:
        super().__init__(f"{key}: {why}")
        self.key = key
        self.why = why


def matching(expected: Sequence[bytes], given: Iterable[bytes]) -> int | None:
    """The place of the first expected value that is among the given ones; None if none is.

    Each is compared with each, also after a match, so that the time reveals nothing.
    """
    candidates = list(given)
    found = [True in [hmac.compare_digest(each, one) for one in candidates] for each in expected]
    return found.index(True) if True in found else None


def unproven(reason: str, detail: str, skew: float | None = None) -> PingRefused:
    """A refusal for want of a proof."""
    return PingRefused(401, "Unauthorized", detail, reason, skew)


def check_time(skew: float, tolerance: float | None, *, proven: bool = True) -> None:
    """Raises PingRefused if a signed time is too far from ours, either way. `skew` is its time minus ours.

    Where it is not `proven` yet, it says nothing about the sender's clock.
    """
    if tolerance is None or -tolerance <= skew <= tolerance:
        return
    known = skew if proven else None
    if skew < 0:
        raise unproven("too old", f"The signed time is {-skew:.0f} s behind the clock here.", known)
    raise unproven("too new", f"The signed time is {skew:.0f} s ahead of the clock here.", known)


def check_head_time(request: HookRequest, skew: float, tolerance: float | None) -> None:
    """The same before the proof, for a request whose body is not here: it need not come, then."""
    if isinstance(request, HeadRequest):
        check_time(skew, tolerance, proven=False)
