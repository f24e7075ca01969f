"""All paths of the console, each with the role that it needs. Each GET has a twin: its path with .json at the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from glassq.console.console import Console
from glassq.console.pages import (
    activity,
    buried,
    delivery,
    entry,
    health,
    live,
    overview,
    plan,
    run,
    schedules,
    search,
    sources,
    steer,
)
from glassq.console.request import Answer, PageRequest
from glassq.console.roles import Role

PageFunction = Callable[[Console, PageRequest], Answer]
LOGIN = "/login"


@dataclass(frozen=True, slots=True)
class PageRoute:
    """What a path answers: `page` makes the answer for whoever has the role; `name` is for people.

    `params` are the names that its query may have. docs/console.md has them all, for bookmarks and alerts.
    """

    method: Literal["GET", "POST"]
    path: str
    role: Role
    page: PageFunction
    name: str
    params: tuple[str, ...] = ()


ROUTES: tuple[PageRoute, ...] = (
    PageRoute("GET", LOGIN, Role.NOBODY, entry.login, "login", ("next", "code")),
    PageRoute("POST", LOGIN, Role.NOBODY, entry.sign_in, "sign in"),
    # whoever has signed in, may sign out: nothing is changed but that
    PageRoute("POST", "/logout", Role.NOBODY, entry.sign_out, "sign out"),
    PageRoute("GET", "/", Role.VIEWER, overview.overview, "overview", ("hours",)),
    PageRoute("GET", "/queues", Role.VIEWER, overview.queues, "queues"),
    PageRoute("GET", "/queues/{name:path}", Role.VIEWER, overview.queue, "queue", ("hours",)),
    PageRoute("GET", "/sources", Role.VIEWER, sources.sources, "sources"),
    PageRoute("GET", "/sources/{name}", Role.VIEWER, sources.source, "source"),
    PageRoute("GET", "/schedules", Role.VIEWER, schedules.schedules, "schedules"),
    PageRoute("GET", "/search", Role.VIEWER, search.search, "search", search.PARAMS),
    PageRoute("GET", "/live", Role.VIEWER, live.live, "live", live.PARAMS),
    PageRoute("GET", "/activity", Role.VIEWER, activity.activity, "activity", activity.PARAMS),
    PageRoute("GET", "/health", Role.VIEWER, health.health, "health"),
    PageRoute("GET", "/buried", Role.VIEWER, buried.buried, "buried", buried.PARAMS),
    PageRoute("GET", "/buried/{id}", Role.VIEWER, buried.group, "group", ("page",)),
    PageRoute("GET", "/d/{id}", Role.VIEWER, delivery.delivery, "delivery", ("order", "body")),
    PageRoute("GET", "/d/{id}/body", Role.VIEWER, delivery.body, "body"),
    PageRoute("GET", "/d/{id}/group", Role.VIEWER, buried.group_of, "group of a delivery"),
    PageRoute("GET", "/d/{id}/edit", Role.OPERATOR, delivery.edit, "edit"),
    PageRoute("POST", "/plan/{kind}", Role.OPERATOR, plan.make, "make a plan"),
    PageRoute("GET", "/plans/{id}", Role.VIEWER, plan.show, "plan"),
    PageRoute("POST", "/plans/{id}", Role.OPERATOR, plan.carry_out, "carry out"),
    PageRoute("GET", "/runs/{id}", Role.VIEWER, run.show, "run"),
    PageRoute("POST", "/runs/{id}/stop", Role.OPERATOR, run.stop, "stop"),
    PageRoute("POST", "/runs/{id}/undo", Role.OPERATOR, run.undo, "undo"),
    PageRoute("POST", "/pause", Role.OPERATOR, steer.pause, "pause"),
    PageRoute("POST", "/resume", Role.OPERATOR, steer.resume, "resume"),
    PageRoute("POST", "/groups/{cause}/note", Role.OPERATOR, steer.note, "note"),
)
