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
    """What a path answers: `page` makes the answer for whoever has the role; `name` is for people."""

    method: Literal["GET", "POST"]
    path: str
    role: Role
    page: PageFunction
    name: str


ROUTES: tuple[PageRoute, ...] = (
    PageRoute("GET", LOGIN, Role.NOBODY, entry.login, "login"),
    PageRoute("POST", LOGIN, Role.NOBODY, entry.sign_in, "sign in"),
    # whoever has signed in, may sign out: nothing is changed but that
    PageRoute("POST", "/logout", Role.NOBODY, entry.sign_out, "sign out"),
    PageRoute("GET", "/", Role.VIEWER, overview.overview, "overview"),
    PageRoute("GET", "/queues", Role.VIEWER, overview.queues, "queues"),
    PageRoute("GET", "/queues/{name}", Role.VIEWER, overview.queue, "queue"),
    PageRoute("GET", "/sources", Role.VIEWER, sources.sources, "sources"),
    PageRoute("GET", "/sources/{name}", Role.VIEWER, sources.source, "source"),
    PageRoute("GET", "/schedules", Role.VIEWER, schedules.schedules, "schedules"),
    PageRoute("GET", "/search", Role.VIEWER, search.search, "search"),
    PageRoute("GET", "/live", Role.VIEWER, live.live, "live"),
    PageRoute("GET", "/activity", Role.VIEWER, activity.activity, "activity"),
    PageRoute("GET", "/health", Role.VIEWER, health.health, "health"),
    PageRoute("GET", "/buried", Role.VIEWER, buried.buried, "buried"),
    PageRoute("GET", "/buried/{id}", Role.VIEWER, buried.group, "group"),
    PageRoute("GET", "/d/{id}", Role.VIEWER, delivery.delivery, "delivery"),
    PageRoute("GET", "/d/{id}/body", Role.VIEWER, delivery.body, "body"),
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
