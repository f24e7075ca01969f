"""Answers as bytes: pages of templates, with what stands on every page, and their twins as JSON."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import jinja2

from glassq.log import escape
from glassq.operations.words import moment, span

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from glassq.console.assets import Assets
    from glassq.console.roles import Actor
    from glassq.operations.pauses import Pause

_TEMPLATES = Path(__file__).parent / "templates"
# Blanks, and what only seems to be one: an override of the direction of writing hides what a text is.
_LINES = re.compile(r"([\n\t])")
_INVISIBLE = re.compile("[\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")

# The pages that stand on every page: the path, its name, the key after g.
NAV = (
    ("/", "Overview", "o"),
    ("/buried", "Buried", "b"),
    ("/queues", "Queues", "q"),
    ("/sources", "Sources", "s"),
    ("/schedules", "Schedules", "c"),
    ("/live", "Live", "l"),
    ("/activity", "Activity", "a"),
    ("/health", "Health", "h"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """What stands on every page. `actor` is None before anybody has signed in.

    `verdict` is the most urgent of what is wrong, with `level` "wrong", "note" or "ok" (None: nobody has looked yet);
    `buried` is how many deliveries are buried, None where nobody knows; `paused` are the tubes that are paused.
    `path` is that of the page, `twin` the URL of its JSON ("": it has none), `base` what the path of every link of ours
    begins with. `host` is this machine's name.
    """

    actor: Actor | None
    instance: str
    base: str
    path: str
    now: datetime
    twin: str = ""
    host: str = ""
    version: str = ""
    verdict: Any = None
    buried: int | None = None
    paused: tuple[Pause, ...] = ()
    nav: tuple[tuple[str, str, str], ...] = NAV

    @property
    def role(self) -> str:
        """The actor's role in words; "" without an actor."""
        return self.actor.role.words if self.actor else ""

    @property
    def may_act(self) -> bool:
        """Whether buttons that change something are drawn."""
        return self.actor is not None and self.actor.may_act


class Renderer:
    """Makes HTML of templates. Everything that is put into one is text: what it cannot show is written out."""

    def __init__(self, assets: Assets, base: str, adapt: Callable[[str], str]) -> None:
        """`adapt` makes a text's `glassq ...` what is typed here; links begin with `base`."""
        self._env = jinja2.Environment(
            loader=jinja2.FileSystemLoader(_TEMPLATES),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            finalize=shown,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._env.filters.update(ago=_ago, moment=_moment, clock=_clock, day=_day, precise=_precise)
        # jinja leaves the slash, which is in names of tubes
        self._env.filters.update(count=_count, span=_span, rate=_rate, adapt=adapt, urlencode=_quoted)
        self._env.globals.update(command=lambda words: adapt(f"`glassq {words}`").strip("`"))
        self._env.globals.update(static=lambda name: f"{base}{assets.path(name)}", url=lambda path: f"{base}{path}")

    def compile_all(self) -> None:
        """Compiles the templates now, so that nobody's first page waits for that."""
        for name in self._env.list_templates():
            self._env.get_template(name)

    def page(self, template: str, frame: Frame, values: Mapping[str, Any]) -> str:
        """The template with these values."""
        return self._env.get_template(template).render({**values, "frame": frame, "now": frame.now})


def shown(value: Any) -> Any:
    """What a template puts out: of a text, all that cannot be seen is written out, but for lines and tabs."""
    if value is None:
        return ""
    if not isinstance(value, str) or hasattr(value, "__html__") or value.isprintable():
        return value
    parts = _LINES.split(value)
    written = "".join(each if each in ("\n", "\t") else escape(each) for each in parts)
    return _INVISIBLE.sub(lambda found: found[0].encode("unicode_escape").decode(), written)


def _quoted(value: object) -> str:
    """The value as one part of a path, or as a value of a query; it may hold what UTF-8 cannot."""
    return quote(str(value), safe="", errors="replace")


@jinja2.pass_context
def _ago(context: jinja2.runtime.Context, value: datetime | None) -> str:
    """How long ago that was, in words."""
    if value is None:
        return "-"
    past = (context["now"] - value).total_seconds()
    return span(past) if past >= 0 else f"in {span(-past)}"


def _moment(value: datetime | None) -> str:
    return moment(value) if value is not None else "-"


def _clock(value: datetime | None) -> str:
    """The time of day in UTC."""
    return value.astimezone(UTC).strftime("%H:%M:%S") if value is not None else "-"


def _day(value: datetime | None) -> str:
    """The day in UTC."""
    return value.astimezone(UTC).strftime("%Y-%m-%d") if value is not None else "-"


def _precise(value: datetime | None) -> str:
    """The time of day in UTC, to the millisecond."""
    return value.astimezone(UTC).strftime("%H:%M:%S.%f")[:-3] if value is not None else "-"


def _count(value: int | None) -> str:
    return f"{value:,}" if value is not None else "-"


def _rate(value: float | None) -> str:
    """So many in a second, or what is rarer, in a minute."""
    if value is None:
        return "-"
    return f"{value:.3g}/s" if value >= 1 or not value else f"{value * 60:.3g}/min"


def _span(value: float | None) -> str:
    return span(value) or "0s" if value is not None else "-"
