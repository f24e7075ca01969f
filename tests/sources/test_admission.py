"""Token in the path, and the client's address."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from glassq.errors import PingRefused
from glassq.sources.admission import check_address, check_path


@pytest.mark.parametrize(
    ("target", "tokens", "right"),
    [
        ("/hooks/a", (), True),
        ("/hooks/a?b=/c/d", (), True),
        ("/hooks/%61", (), True),
        ("/hooks/a/", (), False),
        ("/hooks/a/b", (), False),
        ("/hooks/a", ("t",), False),
        ("/hooks/a/", ("t",), False),
        ("/hooks/a/t", ("s", "t"), True),
        ("/hooks/a/t?x", ("t",), True),
        ("/hooks/a/%74", ("t",), True),
        ("/hooks/a/tt", ("t",), False),
        ("/hooks/a/t/t", ("t",), False),
        ("/hooks/a/\xe9", ("t",), False),
    ],
)
def test_the_path_ends_with_the_token_if_there_is_one(target: str, tokens: tuple[str, ...], right: bool) -> None:
    known = [token.encode() for token in tokens]
    if right:
        check_path(target, known)
        return
    with pytest.raises(PingRefused) as caught:
        check_path(target, known)
    assert (caught.value.status, caught.value.reason, caught.value.detail) == (404, "path token", "")


@pytest.mark.parametrize(
    ("peer", "allowed", "right"),
    [
        ("192.0.2.7", (), True),
        ("", (), True),
        ("192.0.2.7", ("198.51.100.0/24", "192.0.2.0/24"), True),
        ("192.0.3.7", ("192.0.2.0/24",), False),
        ("2001:db8::1", ("2001:db8::/32",), True),
        ("192.0.2.7", ("2001:db8::/32",), False),
        ("", ("192.0.2.0/24",), False),
        ("nonsense", ("0.0.0.0/0",), False),
    ],
)
def test_only_allowed_addresses_may_send(peer: str, allowed: tuple[str, ...], right: bool) -> None:
    networks = [ip_network(network) for network in allowed]
    if right:
        check_address(peer, networks)
        return
    with pytest.raises(PingRefused) as caught:
        check_address(peer, networks)
    assert (caught.value.status, caught.value.reason) == (403, "address")
