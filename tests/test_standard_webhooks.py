"""What is signed, held against the vectors that the spec's own libraries publish."""

from __future__ import annotations

import pytest

from glassq.standard_webhooks import shared_key, signed_headers

# https://github.com/standard-webhooks/standard-webhooks: the tests of its Python library
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
PUBLISHED = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
BODY = b'{"test": 2432232314}'


@pytest.mark.parametrize("secret", [SECRET, SECRET.removeprefix("whsec_")])
def test_the_signature_is_that_of_the_published_vector(secret: str) -> None:
    assert signed_headers([shared_key(secret)], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330.9, BODY) == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": PUBLISHED,
    }


def test_while_secrets_are_rotated_each_signs() -> None:
    made = signed_headers([bytes(24), shared_key(SECRET)], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, BODY)
    other, ours = made["webhook-signature"].split(" ")
    assert (ours, other.partition(",")[0]) == (PUBLISHED, "v1")
    assert other != ours


@pytest.mark.parametrize(
    "secret", ["whsec_", "whsec_c2hvcnQ=", "whpk_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_\xe9", "no"]
)
def test_what_is_no_key_is_refused_and_not_quoted(secret: str) -> None:
    with pytest.raises(ValueError, match=r"^expected whsec_ and base64 of at least 16 bytes$"):
        shared_key(secret)
