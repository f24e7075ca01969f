"""What an error of the service says to an operator, and what to do about it."""

from __future__ import annotations

import pytest
from botocore import exceptions as boto

from glassq.queues.aws.troubles import translated
from glassq.queues.sqs.troubles import WORDS, explained

DENIED = "User: arn:aws:iam::1:user/web is not authorized to perform: sqs:SendMessage on resource: shop-glassq"
EXPIRED = "Signature expired: 20261129T000000Z is now earlier than 20261129T001000Z (20261129T001500Z - 5 min.)"
AHEAD = "Signature not yet current: 20261129T010000Z is now later than 20261129T001000Z"


def answered(code: str, message: str, status: int = 400) -> boto.ClientError:
    answer = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return boto.ClientError(answer, "SendMessage")


@pytest.mark.parametrize(
    ("error", "name", "said", "todo"),
    [
        (answered("AccessDenied", DENIED, 403), "rights", "shop-glassq: AccessDenied: User", "`glassq queue init`"),
        (answered("KmsAccessDenied", "no access to the key"), "rights", "KmsAccessDenied", "the rights"),
        (answered("InvalidClientTokenId", "The token is invalid", 403), "credentials", "token", "sts get-caller"),
        (answered("SignatureDoesNotMatch", EXPIRED, 403), "clock", "is now earlier", "set this host's clock"),
        (answered("InvalidSignatureException", AHEAD, 403), "clock", "is now later", "set this host's clock"),
        (answered("RequestTimeTooSkewed", "too large", 403), "clock", "too large", "set this host's clock"),
        (answered("SignatureDoesNotMatch", "it does not match", 403), "credentials", "match", "sts get-caller"),
        (answered("Throttling", "Rate exceeded"), "rate", "Rate exceeded", "tried again"),
        (answered("AWS.SimpleQueueService.NonExistentQueue", "gone"), "queues", "shop-glassq", "`glassq queue init`"),
        (answered("OverLimit", "120000"), "queue", "too many jobs are reserved", "policy"),
        (boto.NoCredentialsError(), "credentials", "Unable to locate credentials", "sts get-caller"),
        (boto.EndpointConnectionError(endpoint_url="https://x"), "queue", "https://x", "VPC endpoint"),
        (boto.SSLError(endpoint_url="https://x", error="self-signed"), "tls", "self-signed", "AWS_CA_BUNDLE"),
        (boto.ProfileNotFound(profile="shop"), "credentials", "(shop) could not be found", "sts get-caller"),
        (boto.ConfigParseError(path="/a"), "credentials", "Unable to parse", "sts get-caller"),
        (
            boto.EndpointConnectionError(endpoint_url="https://sqs.eu-wset-1.x"),
            "queue",
            "wset",
            "the region in [queue]",
        ),
        (boto.ReadTimeoutError(endpoint_url="https://x"), "queue", "https://x", "VPC endpoint"),
    ],
)
def test_an_error_says_what_is_wrong_and_what_to_do(error: Exception, name: str, said: str, todo: str) -> None:
    fact = explained(translated(error, "shop-glassq", WORDS))
    assert (fact.name, fact.ok) == (name, False)
    assert said in fact.said
    assert todo in fact.todo
