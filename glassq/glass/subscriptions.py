"""Subscriptions: asks Google to send pings (`glassq subscribe`)."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

from glassq.glass.api import MirrorApi
from glassq.glass.credentials import CredentialStore
from glassq.values import HttpUrl

if TYPE_CHECKING:
    from collections.abc import Sequence

    from glassq.settings import Settings

COLLECTIONS = ("timeline", "locations", "settings")
OPERATIONS = ("INSERT", "UPDATE", "DELETE", "MENU_ACTION")
# The fields of the API's answer that are returned: all but the verifyToken.
_SHOWN = ("id", "collection", "operation", "callbackUrl", "userToken", "updated")


def subscribe(
    settings: Settings,
    user: str,
    collection: str,
    callback: str,
    verify_token: str | None,
    operations: Sequence[str] = (),
) -> dict[str, Any]:
    """Creates a subscription for `user` and returns the API's answer without the verifyToken.

    `callback` must be https (plain http only to loopback, for a simulated Glass). No `operations` means all of them.
    The subscription's userToken is the user id: with it the handler finds a ping's credentials.
    Raises ValueError for a wrong argument, SettingsError, Retry, or Bury.
    """
    if collection not in COLLECTIONS:
        raise ValueError(f'collection "{collection}": expected one of {", ".join(COLLECTIONS)}')
    for operation in operations:
        if operation not in OPERATIONS:
            raise ValueError(f'operation "{operation}": expected one of {", ".join(OPERATIONS)}')
    try:
        url = HttpUrl(callback)
    except ValueError as error:
        raise ValueError(f'callback "{callback}": {error}') from None
    body = {"collection": collection, "callbackUrl": url, "userToken": user, "operation": list(operations)}
    if verify_token:
        body["verifyToken"] = verify_token
    with closing(MirrorApi(settings, CredentialStore.open(settings))) as mirror:
        made = mirror.account(user).subscribe(body)
    return {name: made[name] for name in _SHOWN if name in made}
