"""A kind whose keys glassq-web has to fetch: the sender is asked to come again, and then is taken."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.conftest import wait_for
from tests.intake.wire import request
from tests.push.targets import Target
from tests.sources.certificates import Authority, pem_of
from tests.sources.tokens import AUDIENCE, OTHER_RSA, SET, signed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Beanstalkd
    from tests.intake.conftest import Web
    from tests.intake.wire import Answer


def test_a_key_is_fetched_aside_and_outlives_a_restart(
    shared_beanstalkd: Beanstalkd, start_web: Callable[..., Web], jobs: Callable[[], list[bytes]], tmp_path: Path
) -> None:
    authority = Authority()
    (tmp_path / "root.pem").write_bytes(pem_of(authority.certificate))
    trusting = ("env", f"SSL_CERT_FILE={tmp_path / 'root.pem'}")
    with Target(authority.server(tmp_path)) as issuer:
        found = {"issuer": issuer.url, "jwks_uri": f"{issuer.url}/keys"}
        issuer.pages = {"/.well-known/openid-configuration": json.dumps(found).encode(), "/keys": SET}
        section = f'[sources.orders]\nkind = "oidc"\nissuer = "{issuer.url}"\naudience = "{AUDIENCE}"\naccount = "me"'

        def start() -> Web:
            cache = str(tmp_path / "keys")
            return start_web(shared_beanstalkd.url, under=trusting, queue=section, key_cache=cache)

        def send(web: Web, token: str) -> Answer:
            data = request(b"{}", f"Authorization: Bearer {token}", line="POST /hooks/orders HTTP/1.1")
            return web.ask(data)

        # what other tests have left in the queue
        jobs()
        web, good = start(), signed(iss=issuer.url, sub="me")
        first = send(web, good)
        assert (first.status, "retry-after" in first.headers) == (503, True)
        wait_for(lambda: send(web, good).status == 200, "the issuer's keys")
        assert send(web, signed(OTHER_RSA, "one", iss=issuer.url, sub="me")).status == 401
        assert send(web, signed(iss=issuer.url, sub="another")).status == 401
        assert len(issuer.asked) == 2
        assert len(jobs()) == 1

        assert send(start(), good).status == 200
        assert len(issuer.asked) == 2
        assert len(jobs()) == 1
