"""What a page gets, and what it gives back: values, without HTTP and without HTML."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from glassq.console.roles import Actor


class FormFields(dict[str, str]):
    """The fields of a form or a query. Of a name that stands there several times, the last one counts, or `all`."""

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        #: all of them, in their order
        self.pairs = tuple(pairs)
        super().__init__(self.pairs)

    def all(self, name: str) -> tuple[str, ...]:
        """All values of this name, in their order."""
        return tuple(value for each, value in self.pairs if each == name)


@dataclass(frozen=True, slots=True)
class PageRequest:
    """A request that was let in.

    `params` is the query, `form` the body of a POST, `path` the parts of the path that its route names; `url` is the
    path with the query. `visitor` is who may sign in by this door, None where nobody can tell; `actor` is who has.
    `now` is in UTC.
    """

    params: FormFields
    path: Mapping[str, str]
    form: FormFields
    actor: Actor
    now: datetime
    url: str = "/"
    visitor: Actor | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """A page: `document` is what its twin with .json answers, or makes that; `values` go to the template beside it.

    `instead`: a person is sent to this path of ours, as there is nothing to choose from ("": no).
    """

    template: str
    title: str
    document: object
    values: Mapping[str, Any] = field(default_factory=dict)
    status: int = 200
    instead: str = ""


@dataclass(frozen=True, slots=True)
class Redirect:
    """See Other, after a POST: `to` is a path of ours. `cookie` is set on the way."""

    to: str
    cookie: str = ""


@dataclass(frozen=True, slots=True)
class Text:
    """Plain text, or a file to keep: `file` is its name, "" where the browser shows the text itself."""

    text: str
    content_type: str = "text/plain; charset=utf-8"
    file: str = ""


Answer = Page | Redirect | Text
