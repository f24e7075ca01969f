"""Maps failures of Google Cloud Storage to verdicts.

A failure is a Retry if it may pass by itself, or once a machine is up, a key is known everywhere or a permission has
taken effect; the delivery's budget limits the number of tries. It is a Bury only if this request can never succeed.
The statuses and reasons are those of the JSON API ("HTTP status and error codes for JSON").
"""

from __future__ import annotations

import errno
import re
from http import HTTPStatus
from typing import Any

from google.api_core.exceptions import RetryError
from google.auth.exceptions import (
    DefaultCredentialsError,
    GoogleAuthError,
    OAuthError,
    RefreshError,
    ResponseError,
    TimeoutError,  # noqa: A004 - google-auth's own, which is not Python's
    TransportError,
)
from google.cloud.storage.exceptions import DataCorruption

from glassq.errors import Bury, Retry
from glassq.glass.verdicts import QUOTA_DELAY
from glassq.headers import retry_delay

# Maximum number of characters that a reason quotes from a server.
_MAX_WORDS = 300
# google-auth's message starts with this if it has found none anywhere. While a machine boots, its metadata server is
# not up yet.
_NONE_FOUND = "Your default credentials were not found"
# OAuth errors (RFC 6749, 5.2) that are permanent faults of our set-up. invalid_grant is not one of them: it is also the
# error for a wrong clock, and for a key so new that not every server knows it.
_CREDENTIALS_WRONG = {"invalid_client", "unauthorized_client", "invalid_scope"}
# Statuses that another try may not get again. 401, 403 and 404 are explained below.
_PASSES = {
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.FORBIDDEN,
    HTTPStatus.NOT_FOUND,
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.CONFLICT,
    HTTPStatus.TOO_EARLY,
    HTTPStatus.TOO_MANY_REQUESTS,
}
# A new key, permission or bucket takes minutes to take effect, and an operator can still create a missing one.
_HINTS: dict[int, str] = {
    HTTPStatus.UNAUTHORIZED: "the credentials are not accepted",
    HTTPStatus.FORBIDDEN: "not allowed; grant roles/storage.objectUser on the bucket to this service account",
    HTTPStatus.NOT_FOUND: "the bucket does not exist; create it, or correct [storage] url",
}
# Reasons of a 403: too many requests, a used-up quota, and permanent refusals.
_TOO_FAST = {"rateLimitExceeded", "userRateLimitExceeded"}
_QUOTA = {"quotaExceeded", "dailyLimitExceeded"}
_REFUSED_FOR_GOOD = {
    "accountDisabled",
    "countryBlocked",
    "insufficientPermissions",
    "objectUnderActiveHold",
    "retentionPolicyNotMet",
    "sslRequired",
}
# A 400 for content that does not match its announced checksum: it was damaged in transit.
_DAMAGED = re.compile(r"\b(?:md5|crc32c|checksum|digest|hash)\b.*\bmatch", re.IGNORECASE | re.DOTALL)


def verdict(error: Exception, trouble: str) -> Retry | Bury:
    """Retry for a failure that may pass, Bury for a permanent one; see above.

    `trouble` says what could not be done; the reason starts with it.
    """
    if isinstance(error, RetryError) and isinstance(error.cause, Exception):
        return verdict(error.cause, trouble)
    if isinstance(error, GoogleAuthError):
        return _of_credentials(error, trouble)
    code = status(error)
    if isinstance(error, DataCorruption):
        return Retry(f"{trouble}: the bytes arrived changed")
    if code is None:
        return Retry(f"{trouble}: {_in_words(error)}")
    return _of_answer(_response(error), code, trouble)


def status(error: Exception) -> int | None:
    """The HTTP status of the answer that made the library raise; None if there was no answer."""
    code = getattr(_response(error), "status_code", None) or getattr(error, "code", None)
    return int(code) if isinstance(code, int) else None


def _of_answer(response: Any, code: int, trouble: str) -> Retry | Bury:
    words, reasons = _said(response)
    said = f"HTTP {code} {words}".rstrip()
    # 404 and 410 can also mean that a resumable upload's session has ended: start again ("Resumable uploads").
    session_lost = code in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE) and "upload_id=" in getattr(response, "url", "")
    hint = "" if session_lost or reasons & (_TOO_FAST | _QUOTA) else _HINTS.get(code, "")
    if code == HTTPStatus.BAD_REQUEST and _DAMAGED.search(words):
        return Retry(f"{trouble}: the bytes arrived changed ({said})")
    reason = f"{trouble}: {hint} ({said})" if hint else f"{trouble}: {said}"
    passes = code in _PASSES or not 400 <= code < 500
    if not (passes or session_lost) or (code == HTTPStatus.FORBIDDEN and reasons & _REFUSED_FOR_GOOD):
        return Bury(reason)
    delay = retry_delay(getattr(response, "headers", {}).get("Retry-After"))
    return Retry(reason, max(QUOTA_DELAY, delay or 0.0) if reasons & _QUOTA else delay)


def _of_credentials(error: GoogleAuthError, trouble: str) -> Retry | Bury:
    if isinstance(error, DefaultCredentialsError):
        return _of_missing(error, trouble)
    if isinstance(error, TransportError | ResponseError | TimeoutError):
        return Retry(f"{trouble}: Google's token endpoint cannot be reached")
    if isinstance(error, RefreshError | OAuthError):
        answer = error.args[1] if len(error.args) > 1 and isinstance(error.args[1], dict) else {}
        code = str(answer.get("error", ""))
        said = f"{code} {answer.get('error_description', '')}".strip()[:_MAX_WORDS]
        refused = f"{trouble}: Google does not accept the service account's key ({said}); clock and key right?"
        if code in _CREDENTIALS_WRONG:
            return Bury(refused)
        return Retry(refused if code == "invalid_grant" else f"{trouble}: Google's token endpoint gives no token now")
    return Bury(f"{trouble}: the Google credentials cannot be used: {str(error)[:_MAX_WORDS]}")


def _of_missing(error: DefaultCredentialsError, trouble: str) -> Retry | Bury:
    words = str(error.args[0] if error.args else "")[:_MAX_WORDS]
    if words.startswith(_NONE_FOUND):
        places = "GOOGLE_APPLICATION_CREDENTIALS names no file, and no metadata server answers"
        return Retry(f"{trouble}: no Google credentials now: {places}")
    # for a file that is not JSON, the second argument says why
    why = f": {error.args[1]}" if len(error.args) > 1 else ""
    return Bury(
        f"{trouble}: no usable Google credentials, see GOOGLE_APPLICATION_CREDENTIALS ({words}{why[:_MAX_WORDS]})"
    )


def _response(error: Exception) -> Any:
    return getattr(error, "response", None)


def _said(response: Any) -> tuple[str, set[str]]:
    """The message and the reasons in Google's error body; both empty if the answer is not Google's."""
    try:
        error = response.json()["error"]
        reasons = {item.get("reason", "") for item in error.get("errors", [])}
        return str(error.get("message", ""))[:_MAX_WORDS], reasons
    except (AttributeError, KeyError, TypeError, ValueError):
        return "", set()


def _in_words(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "no space left for temporary files"
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename} cannot be used: {error.strerror}"
    return f"the connection failed: {getattr(error, 'strerror', None) or type(error).__name__}"
