"""A shop in the demo whose orders fail for a few reasons: something for an operator to look at."""

from __future__ import annotations

import json
from http.client import HTTPException
from typing import TYPE_CHECKING

from glassq.local_http import post

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from glassq.settings import Settings

NAME = "shop"
# What no order waits for longer, in seconds.
TIMEOUT = 10.0
ROUTES = {NAME: "shop:ship"}
HANDLER = '''\
"""The handler of the demo's shop. Mend it, and kick what lies buried."""

from glassq import Bury, Delivery


def ship(delivery: Delivery) -> str:
    order = delivery.json()
    if order["total"] > 1000:
        raise Bury(f"503 from https://warehouse.example/v1/orders/{order['id']}: no stock of {order['item']}")
    if "address" not in order:
        raise Bury(f"order {order['id']} has no address")
    if not order["address"].isprintable():
        raise Bury("the address is no text")
    return f"order {order['id']} shipped"
'''


def sections(directory: Path) -> dict[str, dict[str, object]]:
    """The section of its source."""
    return {f"sources.{NAME}": {"kind": "token", "token": "bearer", "secrets_file": directory / f"{NAME}-secrets"}}


def order(settings: Settings) -> int:
    """Sends some orders; how many were acknowledged."""
    place = settings.intake.bind.place
    assert place is not None, "a demo listens at a port of its own"
    token = settings.secret(f"sources.{NAME}.secrets_file")[0]
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    taken = 0
    for each in _orders():
        try:
            status, _ = post(place, f"/hooks/{NAME}", headers, json.dumps(each).encode(), timeout=TIMEOUT)
        except (OSError, HTTPException):
            continue
        taken += status == 200
    return taken


def _orders() -> Iterator[dict[str, object]]:
    for number in range(20):
        made: dict[str, object] = {"id": 4700 + number, "item": f"lamp {number % 3}", "total": 20 + number}
        if number % 2:
            made["total"] = 1200
        elif number % 3:
            made["address"] = "Main Street\x07 1" if number == 4 else f"Main Street {number}"
        yield made
