"""Whose address a request comes from, where a proxy stands before the intake."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

from glassq.errors import SettingsError
from glassq.settings import toml_value

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from ipaddress import IPv4Network, IPv6Network

    from glassq.settings import Settings

#: in place of an address: who connects to a unix socket
UNIX = "unix"
_HERE = (ip_network("127.0.0.0/8"), ip_network("::1"))


def check_allowed(settings: Settings) -> None:
    """Checks that `allow` of a source can let anybody in. Raises SettingsError.

    Where only this machine can connect, a proxy does, and clients have addresses only if it is trusted.
    """
    bind = settings.intake.bind.place
    if settings.intake.trusted_proxies or not (isinstance(bind, str) or (bind and _is_here(bind[0]))):
        return
    for name, source in settings.sources.items():
        if source.allow and (isinstance(bind, str) or not any(map(_holds_this_machine, source.allow))):
            key = f"{settings.file}: [sources.{name}] allow = {toml_value(source.allow)}"
            why = f'would refuse every ping, as only this machine connects to [intake] bind = "{settings.intake.bind}"'
            raise SettingsError(f"{key}: {why}: expected [intake] trusted_proxies")


def _is_here(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _holds_this_machine(network: str) -> bool:
    found = ip_network(network)
    return any(found.overlaps(here) for here in _HERE if here.version == found.version)


class TrustedProxies:
    """The proxies whose X-Forwarded-For is believed; without any, nobody's is."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        """`names` are addresses, networks and UNIX. Raises ValueError."""
        self._unix = False
        self._networks: list[IPv4Network | IPv6Network] = []
        for name in names:
            if name == UNIX:
                self._unix = True
            else:
                self._networks.append(ip_network(name))

    def __bool__(self) -> bool:
        return self._unix or bool(self._networks)

    def client(self, peer: str, headers: Mapping[str, str]) -> str:
        """The client's address: the last one that no trusted proxy has.

        `peer` is the other end of the connection, "" for a unix socket. Each proxy adds the address that it was called
        from at the end, so what a client has written itself is never reached.
        """
        chain = [part.strip() for part in headers.get("x-forwarded-for", "").split(",") if part.strip()]
        while self._trusts(peer) and chain:
            peer = chain.pop()
        return peer

    def _trusts(self, peer: str) -> bool:
        if not peer:
            return self._unix
        try:
            address = ip_address(peer)
        except ValueError:
            return False
        return any(address in network for network in self._networks)
