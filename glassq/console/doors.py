"""Who may come in, by which door.

| door     | who it is                                                                                    |
|----------|----------------------------------------------------------------------------------------------|
| socket   | the user at the other end of the unix socket, as the kernel says: by `ssh -L` the login name |
| proxy    | that user is [console] proxy_user, and names who has signed in there, in proxy_header        |
| link     | nobody can tell, on loopback: who has a link that the console printed to its starter         |

A name that a proxy says is never taken for a user of this machine: it is a role only as [console] proxy_viewers and
proxy_operators say.
"""

from __future__ import annotations

import grp
import os
import pwd
import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from glassq.console.roles import Actor, Role
from glassq.console.troubles import refused

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from glassq.console.sessions import Session
    from glassq.settings import ConsoleSettings

_PEER = struct.Struct("3i")
# A name that a proxy says is no longer than this, in characters.
_LONGEST = 200
# In the list of a proxy's names: whoever it has let in.
_ALL = "*"


class Doors:
    """Says who somebody at a door is."""

    def __init__(self, settings: ConsoleSettings) -> None:
        self._settings = settings
        self._header = "HTTP_" + settings.proxy_header.upper().replace("-", "_") if settings.proxy_header else ""

    def visitor(self, environ: Mapping[str, Any]) -> Actor | None:
        """Who is at the door, with the role that they would have; None where nobody can tell: on loopback.

        Raises Refused where a header says who it is and may not, or should and does not.
        """
        if not isinstance(environ["glassq.listener"], str):
            self._check_no_header(environ)
            return None
        uid = _peer(environ["glassq.socket"])
        name = _user(uid)
        if self._settings.proxy_user and name == self._settings.proxy_user:
            return self._behind_proxy(environ)
        self._check_no_header(environ)
        return Actor(name, self._role_of_user(uid, name), "socket")

    def admitted(self, session: Session, visitor: Actor | None) -> Actor | None:
        """Who acts in a session, at this door now; None where the session is another one's, or of another door."""
        if visitor is None:
            # only the key's owner makes such a session, and may do with the CLI what an operator does here
            return Actor(session.name, Role.OPERATOR, "link") if session.door == "link" else None
        ours = session.door == visitor.door and session.name == visitor.name
        return visitor if ours else None

    def _behind_proxy(self, environ: Mapping[str, Any]) -> Actor:
        header = self._settings.proxy_header
        name = str(environ.get(self._header, ""))
        if not name or len(name) > _LONGEST or not name.isascii() or not name.isprintable():
            words = f"the proxy does not say who you are: its {header} is empty, or no name in ASCII"
            raise refused(403, words, "set it there for those who have signed in, and nobody else")
        if _is_named(name, self._settings.proxy_operators):
            return Actor(name, Role.OPERATOR, "proxy")
        return Actor(name, Role.VIEWER if _is_named(name, self._settings.proxy_viewers) else Role.NOBODY, "proxy")

    def _check_no_header(self, environ: Mapping[str, Any]) -> None:
        if self._header and self._header in environ:
            header, proxy = self._settings.proxy_header, self._settings.proxy_user
            raise refused(403, f"{header} is taken from the user {proxy} alone", "come in by the proxy, or without it")

    def _role_of_user(self, uid: int, name: str) -> Role:
        if uid == 0:
            return Role.OPERATOR
        groups = _groups(name)
        if groups & set(self._settings.operators):
            return Role.OPERATOR
        return Role.VIEWER if groups & set(self._settings.viewers) else Role.NOBODY


def _is_named(name: str, names: Collection[str]) -> bool:
    # a header that came twice, once from whoever asked, is one with a comma here: that one must be named itself
    return name in names or (_ALL in names and "," not in name)


def _peer(sock: socket.socket) -> int:
    """The user id of the process that connected."""
    _, uid, _ = _PEER.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    return int(uid)


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _groups(name: str) -> set[str]:
    """The names of the groups of this user, as they are now."""
    try:
        ids = os.getgrouplist(name, pwd.getpwnam(name).pw_gid)
    except KeyError:
        return set()
    found = set()
    for each in ids:
        with suppress(KeyError):
            found.add(grp.getgrgid(each).gr_name)
    return found
