"""Kinds that are no preset: "hmac", "token" and "custom" say in the settings how a sender proves itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import msgspec

from glassq.named import import_named
from glassq.sources.presets.preset import Preset
from glassq.sources.schemes.base import SchemeConfig, UnusableKey, Verify
from glassq.sources.schemes.hmac import Hmac
from glassq.sources.schemes.token import ShownToken, Unsigned

if TYPE_CHECKING:
    from collections.abc import Callable

    from glassq.settings import SourceSettings

_HMAC_KEYS = ("header", "signed", "hash", "encoding", "prefix", "list", "key", "timestamp", "unit")


class _Written(Hmac, frozen=True):
    """An HMAC signature as the section writes it."""

    may: ClassVar[tuple[str, ...]] = (*_HMAC_KEYS, "tolerance")


class _WrittenToken(ShownToken, frozen=True):
    """A token as the section writes it."""

    @property
    def may(self) -> tuple[str, ...]:
        """Its place, and a user's name for basic authentication."""
        return ("header", "token", *super().may)


class Custom(msgspec.Struct, frozen=True):
    """A class of the user's own: `verify(request)` returns a Proof or raises PingRefused.

    It is made with a `glassq.sources.schemes.base.SchemeConfig`.
    """

    needs: ClassVar[tuple[str, ...]] = ("custom",)
    may: ClassVar[tuple[str, ...]] = ("secrets_file", "tolerance")
    signs_time: ClassVar[bool] = True

    def prepare(self, given: SchemeConfig) -> Verify:
        """Makes the class. Raises UnusableKey."""
        name = str(given.section.custom)
        if not all(name.partition(":")):
            raise UnusableKey("custom", 'expected "module:Class"')
        try:
            make = import_named(name)
        except ValueError as error:
            raise UnusableKey("custom", str(error)) from error
        try:
            verify: Verify = make(given).verify
        except (Exception, SystemExit) as error:
            raise UnusableKey("custom", f"cannot be made: {type(error).__name__}: {error}") from error
        return verify


def _hmac(section: SourceSettings) -> Preset:
    if not section.header:
        raise UnusableKey("header", "expected the header with the signature: this kind needs it")
    if section.list is not None and len(section.list) not in (2, 3):
        raise UnusableKey("list", 'expected [",", "v1"], or with a time [",", "t", "v1"]')
    scheme = _Written(
        signature=(f"header:{section.header}",),
        signed=section.signed or "{body}",
        hash=section.hash or "sha256",
        encoding=section.encoding or "hex",
        prefix=section.prefix or "",
        list=section.list or (),
        key=section.key or "text",
        timestamp=section.timestamp or "",
        unit=section.unit or "s",
        event_id=(section.event_id or "") if "{id}" in (section.signed or "") else "",
    )
    if "{timestamp}" in scheme.signed and not scheme.signs_time:
        raise UnusableKey("signed", "names a timestamp: expected the key timestamp, which says where it is")
    if "{id}" in scheme.signed and not scheme.event_id:
        raise UnusableKey("signed", "names an id: expected the key event_id, which says where it is")
    if section.tolerance is not None and not scheme.signs_time:
        raise UnusableKey("tolerance", "expected the key timestamp beside it, or a list with a time")
    return Preset(
        name="hmac", title="A signature (HMAC)", scheme=scheme, tolerance=300.0 if scheme.signs_time else None
    )


def _token(section: SourceSettings) -> Preset:
    place = section.token or (f"header:{section.header}" if section.header else "")
    if not place:
        raise UnusableKey("token", 'expected "basic", "bearer", "query:NAME" or "json:a.b", or the key header')
    return Preset(name="token", title="A token", scheme=_WrittenToken(place))


def _none(section: SourceSettings) -> Preset:
    if not (section.path_token_file or section.allow):
        raise UnusableKey("kind", "takes pings of everybody: expected path_token_file, allow, or both beside it")
    return Preset(name="none", title="No proof", scheme=Unsigned())


def _custom(section: SourceSettings) -> Preset:
    return Preset(name="custom", title="A class of your own", scheme=Custom())


# What makes a preset of a section. Raises UnusableKey.
GENERIC: dict[str, Callable[[SourceSettings], Preset]] = {
    "hmac": _hmac,
    "token": _token,
    "none": _none,
    "custom": _custom,
}
