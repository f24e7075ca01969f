"""Whether `allow` of a source can let anybody in."""

from __future__ import annotations

import pytest

from glassq.errors import SettingsError
from glassq.intake.peers import check_allowed
from glassq.settings import parse

ALLOW = '[sources.a]\nkind = "none"\nallow = {}\n'


@pytest.mark.parametrize(
    ("intake", "allow", "fits"),
    [
        ("", '["192.0.2.0/24"]', False),
        ("", '["192.0.2.0/24", "127.0.0.1"]', True),
        ("", "[]", True),
        ('bind = "localhost:80"', '["192.0.2.0/24"]', False),
        ('bind = "[::1]:80"', '["192.0.2.0/24"]', False),
        ('bind = "unix:/run/a.sock"', '["127.0.0.1"]', False),
        ('bind = "unix:/run/a.sock"\ntrusted_proxies = ["unix"]', '["192.0.2.0/24"]', True),
        ('trusted_proxies = ["127.0.0.1"]', '["192.0.2.0/24"]', True),
        ('bind = "0.0.0.0:80"', '["192.0.2.0/24"]', True),
        ('bind = "web.example:80"', '["192.0.2.0/24"]', True),
        ('bind = "fd://3"', '["192.0.2.0/24"]', True),
    ],
)
def test_where_only_a_proxy_connects_it_must_be_trusted(intake: str, allow: str, fits: bool) -> None:
    settings = parse(f"[intake]\n{intake}\n{ALLOW.format(allow)}", "glassq.toml")
    if fits:
        check_allowed(settings)
        return
    with pytest.raises(SettingsError, match=r"\[sources\.a\] allow = .*: would refuse every ping.*trusted_proxies"):
        check_allowed(settings)
