"""Maps errors of Google's libraries to verdicts. `verdict` decides, and a table test checks it.

The rules are Google's documented error reasons, and what was measured (a token endpoint that answers with HTML, an
API that answers 200 with HTML). No reason contains a server's own text, which might hold a token.
"""

from __future__ import annotations

import http.client

import requests
from google.auth.exceptions import GoogleAuthError, RefreshError
from googleapiclient.errors import HttpError

from glassq.errors import Bury, CredentialsError, Drop, QueueError, Retry, Verdict
from glassq.headers import retry_delay

# What the libraries raise if the server or the network fails. UnicodeDecodeError: the response is not text.
LIBRARY_ERRORS = (
    HttpError,
    GoogleAuthError,
    requests.RequestException,
    http.client.HTTPException,
    OSError,
    UnicodeDecodeError,
    CredentialsError,
)
# Delay after a used-up quota, in seconds. A daily quota is reset at midnight Pacific time; one try an hour uses little.
QUOTA_DELAY = 3600.0

_RATE = ("ratelimitexceeded", "userratelimitexceeded")
_QUOTA = ("dailylimitexceeded", "quotaexceeded")
# Also returned in the first minutes after the API was enabled for the project.
_NOT_ENABLED = "accessnotconfigured"
_SETUP = {
    "invalid_client": "the OAuth client's id or secret is wrong ([glass] client_id, client_secret_file)",
    "unauthorized_client": "the OAuth client may not use this user's refresh token: was it made by another client?",
    "invalid_scope": "the OAuth client may not ask for the scopes of this consent",
}


def verdict(error: Exception, doing: str) -> Verdict:
    """The verdict for `error`. `doing` says what was tried, with user and item ("timeline item I of user U")."""
    if isinstance(error, Verdict):
        return error
    if isinstance(error, RefreshError):
        return _of_token_endpoint(error, doing)
    if isinstance(error, HttpError):
        return _of_answer(error, doing)
    if isinstance(error, CredentialsError):
        # A file system or a database can recover by itself; a wrong key or a missing consent cannot.
        passes = isinstance(error.__cause__, OSError | QueueError)
        return Retry(f"{doing}: {error}") if passes else Bury(f"{doing}: {error}")
    if isinstance(error, requests.TooManyRedirects):
        return Retry(f"{doing}: answered with a redirect, which is not followed: it would hand out the token")
    if isinstance(error, requests.exceptions.ChunkedEncodingError | http.client.IncompleteRead):
        return Retry(f"{doing}: the answer is cut short")
    if isinstance(error, GoogleAuthError | OSError | http.client.HTTPException):
        return Retry(f"{doing}: cannot be reached: {_cause(error)}")
    return Retry(f"{doing}: the answer cannot be understood ({type(error).__name__})")


def invalid_grant(error: BaseException | None) -> bool:
    """Whether the token endpoint says that the user's consent is gone.

    Only the response's "error" shows it: `.retryable` and the text do not (google-auth 2.62).
    """
    return isinstance(error, RefreshError) and _oauth_error(error) == "invalid_grant"


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
    wait = retry_delay(error.resp.get("retry-after"))
    if status in (404, 410):
        # Google's own responses have a reason. Without one it comes from a proxy, or api_url is wrong.
        return Drop(f"gone: {said}") if reason else Retry(f"{said} without a reason", wait)
    if status == 403:
        return _of_forbidden(reason, said, wait)
    if status == 401:
        # A fresh access token has been tried already, so the user's consent is not the cause.
        return Retry(f"{said} to a fresh access token", wait)
    if status in (408, 429) or status >= 500:
        return Retry(said, wait)
    if status < 400:
        return Retry(f"{said}: a redirect, which is not followed", wait)
    return Bury(said)


def _of_forbidden(reason: str, said: str, wait: float | None) -> Verdict:
    # Newer responses write RATE_LIMIT_EXCEEDED for rateLimitExceeded.
    kind = reason.replace("_", "").lower()
    if kind in _RATE:
        return Retry(said, wait)
    if kind.startswith(_QUOTA):
        return Retry(f"{said}: the quota is used up", max(QUOTA_DELAY, wait or 0.0))
    if kind == _NOT_ENABLED:
        return Retry(f"{said}: the Mirror API is not enabled for this project, or only since a moment ago", wait)
    if not reason:
        # Google's own 403 has a reason. This one comes from a proxy or a captive portal.
        return Retry(f"{said} without a reason", wait)
    return Bury(said)


def _reason(error: HttpError) -> str:
    details = error.error_details
    first = details[0] if isinstance(details, list) and details else None
    reason = first.get("reason") if isinstance(first, dict) else None
    return reason if isinstance(reason, str) and reason.replace("_", "").isalnum() and len(reason) < 80 else ""


def _cause(error: BaseException) -> str:
    """The operating system's message of the first error in the chain; else the error's type."""
    found = type(error).__name__
    link: BaseException | None = error
    while link is not None:
        found = getattr(link, "strerror", None) or found
        link = link.__cause__ or link.__context__
    return found
