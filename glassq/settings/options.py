"""[handlers.NAME]: a handler's own settings, of any keys. NAME is the handler as its route has it, or the route's."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from glassq import mistakes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from glassq.settings.route import Route
    from glassq.settings.settings import Settings


def options_of(settings: Settings, route: Route, handler: str) -> Mapping[str, Any]:
    """The options of a route's handler, or of one of its steps, read-only; empty if it has none.

    A key in the section with the route's name wins over the same key in the section with the handler's.
    """
    sections = settings.handlers
    return read_only({**sections.get(handler, {}), **sections.get(route.name, {})})


def read_only(options: Mapping[str, Any]) -> Mapping[str, Any]:
    """The same, which nobody can change: tables as mappings, lists as tuples."""
    return MappingProxyType({name: _frozen(value) for name, value in options.items()})


def _frozen(value: Any) -> Any:
    if isinstance(value, dict):
        return read_only(value)
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value


def unknown_handlers(settings: Settings, text: str) -> Iterator[str]:
    """The mistakes of sections that no handler gets."""
    known = dict.fromkeys(name for route in settings.routes for name in (route.name, *route.handlers) if name)
    for name in settings.handlers:
        if name not in known:
            hint = (
                mistakes.nearest(name, list(known)) or f"; expected a handler or a route: {', '.join(known) or 'none'}"
            )
            where = mistakes.located(text, ["handlers", name])
            yield f'{settings.file}: unknown section [handlers."{name}"]{hint}{where}'
