"""What goes wrong with a service of Amazon, by its own codes or boto3's exceptions, and what to do about it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore import exceptions as boto

from glassq.errors import QueueError, QueueRefused, QueueUnavailable
from glassq.mask import masked_line
from glassq.queues.base import Fact

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# None were found, or not what finds them.
_NO_CREDENTIALS = (
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.CredentialRetrievalError,
    boto.TokenRetrievalError,
    boto.ProfileNotFound,
    boto.ConfigNotFound,
    boto.ConfigParseError,
    boto.InvalidConfigError,
)
# What a request met before it could reach the service.
_NEVER_SENT = (
    boto.EndpointConnectionError,
    boto.ConnectTimeoutError,
    boto.ProxyConnectionError,
    boto.SSLError,
    *_NO_CREDENTIALS,
    boto.NoRegionError,
    boto.ParamValidationError,
)
THROTTLED = frozenset(
    {"Throttling", "ThrottlingException", "ThrottledException", "RequestThrottled", "RequestThrottledException"}
    | {"RequestLimitExceeded", "TooManyRequestsException", "SlowDown"}
)
_DENIED = frozenset({"AccessDenied", "AccessDeniedException", "KmsAccessDenied", "KmsDisabled", "KmsInvalidState"})
_UNKNOWN_TO_AMAZON = frozenset(
    {"InvalidClientTokenId", "UnrecognizedClientException", "SignatureDoesNotMatch", "ExpiredToken"}
    | {"ExpiredTokenException", "InvalidAccessKeyId", "IncompleteSignature", "InvalidSignatureException"}
)
# As in "Signature expired: 20261129T000000Z is now earlier than 20261129T001000Z", and for one that is ahead.
_TIMES = "is now "

# Of a value that it does not take, a service says all: "Value '...' at 'input' failed to satisfy constraint".
_QUOTED = re.compile(r"Value '.*' at '", re.DOTALL)

# The host's clock differs from Amazon's by more than 5 minutes.
_SKEWED = frozenset({"RequestTimeTooSkewed", "RequestExpired"})
_CLOCK = "set this host's clock (timedatectl set-ntp true): Amazon refuses what was signed 5 minutes ago, or will be"
_IAM = "give the role of this host the rights that `glassq queue init` lists"
_CREDENTIALS = (
    "give this host a role, or the service's user a profile; boto3 looks for credentials by itself (environment, "
    "~/.aws, the instance's role), `aws sts get-caller-identity` shows what it finds"
)
REACH = (
    "see whether the region in [queue] url is one of Amazon's, and whether this host reaches its endpoint: route, "
    "firewall, VPC endpoint, proxy"
)
_TLS = (
    "if a proxy on the way opens TLS, name the file with its certificate authority in AWS_CA_BUNDLE, for each program "
    "of glassq; the certificate is always checked"
)


@dataclass(frozen=True)
class ServiceWords:
    """What is a service's own: its name, what its answers mean, and what to do about errors of each kind.

    `meaning(code, said, about)` is the error that an answer with this code is; None where any service means the same.
    """

    name: str
    meaning: Callable[[str, str, str], QueueError | None]
    by_kind: Sequence[tuple[type[QueueError], str, str]]

    def place(self, about: str) -> str:
        """What a call concerned, in words."""
        return f"the queue {about}" if about else self.name


class AnswerMissing(QueueUnavailable):
    """The answer does not say what became of what was asked for."""


class ForeignAnswer(Exception):
    """Something on the way has answered, in place of the service."""

    def __init__(self, status: int, content_type: str) -> None:
        kind = masked_line(content_type.partition(";")[0]) or "of no type"
        super().__init__(f"HTTP {status}, {kind}: not the service has answered, but something on the way to it")


def translated(error: Exception, about: str, words: ServiceWords) -> QueueError:
    """The error of a call that concerned this ("": nothing by a name), in our words; `error` becomes its cause."""
    if isinstance(error, boto.ClientError):
        made = _answered(error, about, words)
    elif isinstance(error, boto.BotoCoreError | OSError):
        made = QueueUnavailable(in_short(error))
    elif isinstance(error, ForeignAnswer):
        made = QueueUnavailable(f"{words.place(about)}: {error}")
    else:
        # botocore cannot read the answer: whatever sent it, what was asked may have happened
        made = QueueUnavailable(f"{words.place(about)}: no answer of the service ({type(error).__name__})")
    made.__cause__ = error
    return made


def in_short(said: object) -> str:
    """One line of what a service, or botocore, says: what it quotes of the request, a body or a token, is left out."""
    return masked_line(_QUOTED.sub("a value at '", str(said or "")))


def code_of(error: BaseException | None) -> str:
    """The service's code of an error, without what stands before it; "" where it did not answer."""
    return bare((getattr(error, "response", None) or {}).get("Error", {}).get("Code", "") or "")


def bare(code: object) -> str:
    """A code without what stands before it."""
    return str(code).rpartition("#")[2].rpartition(".")[2]


def is_about_credentials(error: BaseException | None) -> bool:
    """Whether there are no credentials, or Amazon does not know them (any more)."""
    return isinstance(error, _NO_CREDENTIALS) or code_of(error) in _UNKNOWN_TO_AMAZON


def is_throttled(error: QueueError) -> bool:
    """Whether the service has said that there are too many calls: it has done nothing."""
    return code_of(error.__cause__) in THROTTLED


def in_doubt(error: QueueError) -> bool:
    """Whether what was sent may have happened though this came back."""
    if not isinstance(error, QueueUnavailable) or isinstance(error.__cause__, _NEVER_SENT):
        return False
    if isinstance(error, AnswerMissing):
        return True
    # a time that was over before anything was sent has no cause
    return error.__cause__ is not None and not _refused(code_of(error.__cause__))


def _refused(code: str) -> bool:
    return code in THROTTLED | _UNKNOWN_TO_AMAZON | _SKEWED


def _answered(error: Any, about: str, words: ServiceWords) -> QueueError:
    code, found = code_of(error), error.response.get("Error", {})
    said = f"{code}: {in_short(found.get('Message'))}".rstrip(": ")
    where = words.place(about)
    if (meant := words.meaning(code, said, about)) is not None:
        return meant
    if code in _DENIED or code.startswith("Kms"):
        return QueueRefused(f"{where}: {said}")
    if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500) >= 500 or _refused(code):
        return QueueUnavailable(f"{where}: {said}")
    return QueueError(f"{where}: {said}")


def explained(error: QueueError, words: ServiceWords) -> Fact:
    """The error of a call, with what to do about it."""
    said, cause = str(error), error.__cause__
    code = code_of(cause)
    if code in _SKEWED or (code in _UNKNOWN_TO_AMAZON and "ignature" in said and _TIMES in said):
        return Fact("clock", False, said, _CLOCK)
    if isinstance(cause, boto.SSLError):
        return Fact("tls", False, said, _TLS)
    if is_about_credentials(cause):
        return Fact("credentials", False, said, _CREDENTIALS)
    if code in _DENIED:
        return Fact("rights", False, said, _IAM)
    if code in THROTTLED:
        return Fact("rate", False, said, "wait; it is tried again by itself")
    for kind, name, todo in words.by_kind:
        if isinstance(error, kind):
            return Fact(name, False, said, todo)
    return Fact("queue", False, said, "Amazon's health page and the queue's own page may say more")
