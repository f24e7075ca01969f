"""This machine: its name, the name of this run on it, whether systemd runs it, and whether a host name is its own."""

from __future__ import annotations

import os
import secrets
import socket
from contextlib import suppress
from functools import cache
from ipaddress import ip_address
from pathlib import Path


def name() -> str:
    """The host's name in valid UTF-8, even if it was set to other bytes; "localhost" if the system has none."""
    try:
        return os.fsencode(socket.gethostname()).decode("utf-8", "backslashreplace")
    except (OSError, UnicodeError):
        return "localhost"


@cache
def run_name() -> str:
    """The host's name and more, so that no other run of a program has it: two hosts, or containers, may have one name.

    A forked child has its parent's, if that has asked for it before the fork.
    """
    return f"{name()}:{os.getpid()}:{secrets.token_hex(4)}"


def has_systemd() -> bool:
    """Whether systemd runs here, so that its commands are of use (sd_booted(3))."""
    return Path("/run/systemd/system").is_dir()


def is_loopback(host: str) -> bool:
    """Whether the name or address is one that no other machine can reach."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_own(host: str) -> bool:
    """Whether `host`, a name or an address from a URL, is this machine: loopback, localhost, its name or an address.

    Does not ask a name server.
    """
    plain = host.strip("[]").rstrip(".").lower()
    if not plain:
        return False
    own = name().lower()
    if plain in ("localhost", own, own.partition(".")[0]) or plain.endswith(".localhost"):
        return True
    try:
        address = ip_address(plain)
    except ValueError:
        return False
    return address.is_loopback or _is_bindable(plain, socket.AF_INET6 if address.version == 6 else socket.AF_INET)


def _is_bindable(address: str, family: socket.AddressFamily) -> bool:
    with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.bind((address, 0))
        return True
    return False
