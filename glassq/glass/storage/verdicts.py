"""What a failed call of Google Cloud Storage means for the delivery.

The statuses and reasons are those of the JSON API ("HTTP status and error codes for JSON").
"""

from __future__ import annotations

import errno
from http import HTTPStatus
from typing import Any

from google.api_core.exceptions import RetryError
from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError, RefreshError, TransportError
from google.cloud.storage.exceptions import DataCorruption

from glassq.errors import Bury, Retry
from glassq.glass.verdicts import retry_after

# Characters of a server's own words that are worth keeping.
_MAX_WORDS = 300
# A 403 that only means "too fast".
_TOO_FAST = {"rateLimitExceeded", "userRateLimitExceeded"}
# OAuth's errors (RFC 6749, 5.2) that are our set-up's, not the moment's.
_CREDENTIALS_WRONG = {"invalid_grant", "invalid_client", "unauthorized_client", "invalid_scope"}
_HINTS: dict[int, str] = {
    HTTPStatus.UNAUTHORIZED: "the credentials are not accepted",
    HTTPStatus.FORBIDDEN: "not allowed; grant roles/storage.objectUser on the bucket to this service account",
    HTTPStatus.NOT_FOUND: "the bucket does not exist; create it, or mend [storage] url",
}


def verdict(error: Exception, trouble: str) -> Retry | Bury:
    """Retry for what may pass (network, 408, 429, 5xx, the token endpoint), Bury for what an operator must mend.

    `trouble` says what could not be done; it starts the reason.
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
    """The HTTP status of the answer that made the library raise, or None where there was no answer."""
    code = getattr(_response(error), "status_code", None) or getattr(error, "code", None)
    return int(code) if isinstance(code, int) else None


def _of_answer(response: Any, code: int, trouble: str) -> Retry | Bury:
    words, reasons = _said(response)
    headers = getattr(response, "headers", {})
    # 404 and 410 also say that a resumable upload's session has ended: begin again ("Resumable uploads").
    session_lost = code in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE) and "upload_id=" in getattr(response, "url", "")
    passes = code in (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS) or not 400 <= code < 500
    if passes or session_lost or reasons & _TOO_FAST:
        return Retry(f"{trouble}: HTTP {code} {words}".rstrip(), retry_after(headers.get("Retry-After")))
    hint = _HINTS.get(code)
    said = f"HTTP {code} {words}".rstrip()
    return Bury(f"{trouble}: {hint} ({said})" if hint else f"{trouble}: {said}")


def _of_credentials(error: GoogleAuthError, trouble: str) -> Retry | Bury:
    if isinstance(error, DefaultCredentialsError):
        words = str(error.args[0] if error.args else "")[:_MAX_WORDS]
        return Bury(f"{trouble}: no usable Google credentials, see GOOGLE_APPLICATION_CREDENTIALS ({words})")
    if isinstance(error, TransportError):
        return Retry(f"{trouble}: Google's token endpoint cannot be reached")
    if isinstance(error, RefreshError):
        answer = error.args[1] if len(error.args) > 1 and isinstance(error.args[1], dict) else {}
        if answer.get("error") not in _CREDENTIALS_WRONG:
            return Retry(f"{trouble}: Google's token endpoint gives no token now")
        said = f"{answer['error']} {answer.get('error_description', '')}".strip()[:_MAX_WORDS]
        return Bury(f"{trouble}: Google does not accept the service account's key ({said}); clock and key right?")
    return Bury(f"{trouble}: the Google credentials cannot be used: {str(error)[:_MAX_WORDS]}")


def _response(error: Exception) -> Any:
    return getattr(error, "response", None)


def _said(response: Any) -> tuple[str, set[str]]:
    """The message and the reasons in Google's error body; neither, where the answer is not theirs."""
    try:
        error = response.json()["error"]
        reasons = {item.get("reason", "") for item in error.get("errors", [])}
        return str(error.get("message", ""))[:_MAX_WORDS], reasons
    except (AttributeError, KeyError, TypeError, ValueError):
        return "", set()


def _in_words(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "no space left for temporary files"
    return f"the connection failed: {getattr(error, 'strerror', None) or type(error).__name__}"
