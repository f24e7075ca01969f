"""What an error of Google's libraries means for a delivery: `verdict` decides, a table test holds it.

The rules are Google's documented error reasons, and what was measured (a token endpoint that answers with HTML, an
API that answers 200 with HTML). Nothing here puts a server's own text into a reason: it might hold a token.
"""

from __future__ import annotations

import http.client
import math
from typing import TYPE_CHECKING

import requests
from google.auth.exceptions import GoogleAuthError, RefreshError
from googleapiclient.errors import HttpError

from glassq.errors import Bury, CredentialsError, Drop, Retry, Verdict
from glassq.headers import seconds

if TYPE_CHECKING:
    from datetime import datetime

# What the libraries raise when the other side, or the way to it, fails. UnicodeDecodeError: an answer that is no text.
LIBRARY_ERRORS = (
    HttpError,
    GoogleAuthError,
    requests.RequestException,
    http.client.HTTPException,
    OSError,
    UnicodeDecodeError,
    CredentialsError,
)
# A day's quota comes back at midnight Pacific time; asking once in an hour costs little of it. In seconds.
QUOTA_DELAY = 3600.0

_RATE = ("ratelimitexceeded", "userratelimitexceeded")
_QUOTA = ("dailylimitexceeded", "quotaexceeded")
# Also said in the first minutes after the API was enabled for the project.
_NOT_ENABLED = "accessnotconfigured"
_SETUP = {
    "invalid_client": "the OAuth client's id or secret is wrong ([glass] client_id, client_secret_file)",
    "unauthorized_client": "the OAuth client may not use this user's refresh token: was it made by another client?",
    "invalid_scope": "the OAuth client may not ask for the scopes of this consent",
}


def verdict(error: Exception, doing: str) -> Verdict:
    """What `error` comes to; `doing` says what was tried, naming user and item ("timeline item I of user U")."""
    if isinstance(error, Verdict):
        return error
    if isinstance(error, RefreshError):
        return _of_token_endpoint(error, doing)
    if isinstance(error, HttpError):
        return _of_answer(error, doing)
    if isinstance(error, CredentialsError):
        # A file system can recover by itself; a wrong key or a missing consent cannot.
        return Retry(f"{doing}: {error}") if isinstance(error.__cause__, OSError) else Bury(f"{doing}: {error}")
    if isinstance(error, requests.TooManyRedirects):
        return Retry(f"{doing}: answered with a redirect, which is not followed: it would hand out the token")
    if isinstance(error, requests.exceptions.ChunkedEncodingError | http.client.IncompleteRead):
        return Retry(f"{doing}: the answer is cut short")
    if isinstance(error, GoogleAuthError | OSError | http.client.HTTPException):
        return Retry(f"{doing}: cannot be reached: {_cause(error)}")
    return Retry(f"{doing}: the answer cannot be understood ({type(error).__name__})")


def invalid_grant(error: BaseException | None) -> bool:
    """Whether the token endpoint says that the user's consent is gone.

    Only the answer's "error" tells: `.retryable` and the text do not (google-auth 2.62).
    """
    return isinstance(error, RefreshError) and _oauth_error(error) == "invalid_grant"


def retry_after(value: object, now: datetime | None = None) -> float | None:
    """Seconds to wait by a Retry-After value, at least 1 and rounded up; None where it is neither number nor date."""
    wait = seconds(value, now)
    return None if wait is None else max(1.0, math.ceil(wait))


def _of_token_endpoint(error: RefreshError, doing: str) -> Verdict:
    code = _oauth_error(error)
    if code == "invalid_grant":
        return Bury(f"{doing}: the user's consent is revoked or expired (invalid_grant)")
    if code in _SETUP:
        return Bury(f"{doing}: {_SETUP[code]} ({code})")
    return Retry(f"{doing}: the token endpoint gives no access token")


def _oauth_error(error: RefreshError) -> str:
    answer = error.args[1] if len(error.args) > 1 else None
    code = answer.get("error") if isinstance(answer, dict) else None
    return code if isinstance(code, str) else ""


def _of_answer(error: HttpError, doing: str) -> Verdict:
    status, reason = int(error.resp.status), _reason(error)
    said = f"{doing}: the Mirror API answers {status}" + (f" ({reason})" if reason else "")
    wait = retry_after(error.resp.get("retry-after"))
    if status in (404, 410):
        # Google's own answer has a reason. One without comes from something in between, or from a wrong api_url.
        return Drop(f"gone: {said}") if reason else Retry(f"{said} without a reason", wait)
    if status == 403:
        return _of_forbidden(reason, said, wait)
    if status == 401:
        # A fresh access token has been tried by now; whatever this is, it is not the user's consent.
        return Retry(f"{said} to a fresh access token", wait)
    if status in (408, 429) or status >= 500:
        return Retry(said, wait)
    if status < 400:
        return Retry(f"{said}: a redirect, which is not followed", wait)
    return Bury(said)


def _of_forbidden(reason: str, said: str, wait: float | None) -> Verdict:
    # Newer answers write RATE_LIMIT_EXCEEDED for rateLimitExceeded.
    kind = reason.replace("_", "").lower()
    if kind in _RATE:
        return Retry(said, wait)
    if kind.startswith(_QUOTA):
        return Retry(f"{said}: the quota is used up", max(QUOTA_DELAY, wait or 0.0))
    if kind == _NOT_ENABLED:
        return Retry(f"{said}: the Mirror API is not enabled for this project, or only since a moment ago", wait)
    if not reason:
        # Google's own 403 has a reason. This one is from something in between: a proxy, a captive portal.
        return Retry(f"{said} without a reason", wait)
    return Bury(said)


def _reason(error: HttpError) -> str:
    details = error.error_details
    first = details[0] if isinstance(details, list) and details else None
    reason = first.get("reason") if isinstance(first, dict) else None
    return reason if isinstance(reason, str) and reason.replace("_", "").isalnum() and len(reason) < 80 else ""


def _cause(error: BaseException) -> str:
    """The system's words for it, from where the error began; else its type."""
    found = type(error).__name__
    link: BaseException | None = error
    while link is not None:
        found = getattr(link, "strerror", None) or found
        link = link.__cause__ or link.__context__
    return found
