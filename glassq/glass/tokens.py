"""Access tokens: made from users' stored consents, kept in memory, never written anywhere.

This module also stores what Google says about a consent: a new refresh token, or that the user has revoked it.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING, Any

from google.auth.transport.requests import Request
from google.oauth2.credentials import Credentials

from glassq.errors import CredentialsError, Retry
from glassq.glass.google_files import client_secret
from glassq.glass.names import shown
from glassq.glass.verdicts import invalid_grant, verdict
from glassq.headers import retry_delay

if TYPE_CHECKING:
    import requests

    from glassq.errors import Verdict
    from glassq.glass.credentials import CredentialStore
    from glassq.settings import Settings

# Maximum number of users whose access tokens one process caches: about 2 KiB each.
MAX_USERS = 256
# Other texts are not tokens and cannot be sent in a header (RFC 6750, 2.1, and a little wider).
_TOKEN = re.compile(r"[\x21-\x7e]+")

# Seconds to connect, and to wait for each piece of an answer.
Timeout = tuple[float, float]


class Tokens:
    """Provides users' access tokens. One per process; `session` carries the requests to the token endpoint."""

    def __init__(self, settings: Settings, store: CredentialStore, session: requests.Session) -> None:
        """Raises SettingsError if the client's secret cannot be read."""
        self._store = store
        self._request = Request(session)
        self._credentials = partial(
            Credentials,
            None,
            token_uri=settings.glass.token_url,
            client_id=settings.glass.client_id,
            client_secret=client_secret(settings),
        )
        self._kept: OrderedDict[str, Access] = OrderedDict()

    def access(self, user: str) -> Access:
        """The user's access; the same object as long as the stored refresh token does not change.

        Raises UserUnknown, UserRevoked or CredentialsError.
        """
        stored = self._store.get(user)
        kept = self._kept.get(user)
        if kept is None or kept.refresh_token != stored.refresh_token:
            kept = Access(user, stored.refresh_token, self._store, self._request, self._credentials)
            self._kept[user] = kept
        self._kept.move_to_end(user)
        if len(self._kept) > MAX_USERS:
            self._kept.popitem(last=False)
        return kept


class Access:
    """One user's access token, and how to get a new one. `refresh_token` is the stored one."""

    def __init__(
        self,
        user: str,
        refresh_token: str,
        store: CredentialStore,
        request: Request,
        credentials: partial[Credentials],
    ) -> None:
        self.user = user
        self.refresh_token = refresh_token
        self._store = store
        self._request = request
        self._make = credentials
        # Google may issue a new refresh token. Until it is stored, the store has the older one.
        self._latest = refresh_token
        self._current: Credentials | None = None

    def bearer(self, timeout: Timeout) -> str:
        """The Authorization header's value. Raises like `renew`."""
        if self._current is None or not self._current.valid:
            self.renew(timeout)
        self._keep_refresh_token()
        assert self._current is not None
        return f"Bearer {self._current.token}"

    def renew(self, timeout: Timeout) -> None:
        """Gets a new access token, also if there is one.

        A revoked consent is marked as such in the store, unless a fresh one is there already. Raises Retry or Bury.
        """
        fresh = self._make(refresh_token=self._latest)
        try:
            fresh.refresh(partial(self._ask, timeout=timeout))  # type: ignore[no-untyped-call]
        # JSON of an unexpected shape makes google-auth raise any exception at all.
        except Exception as error:
            # from None: the text of a RefreshError may contain the endpoint's whole response, tokens included.
            raise self._refused(error) from None
        if not isinstance(fresh.token, str) or not _TOKEN.fullmatch(fresh.token):
            raise Retry(f"access token of user {shown(self.user)}: the token endpoint gives none that can be sent")
        self._current = fresh
        if isinstance(fresh.refresh_token, str) and fresh.refresh_token:
            self._latest = fresh.refresh_token

    def _ask(self, *arguments: Any, **options: Any) -> Any:
        """One request to the token endpoint. google-auth would sleep and try again; here the queue does the waiting."""
        response = self._request(*arguments, **options)
        if response.status in (408, 429) or response.status >= 500:
            reason = f"access token of user {shown(self.user)}: the token endpoint answers {response.status}"
            raise Retry(reason, retry_delay(response.headers.get("retry-after")))
        return response

    def _refused(self, error: Exception) -> Verdict:
        decided = verdict(error, f"access token of user {shown(self.user)}")
        if not invalid_grant(error):
            return decided
        try:
            marked = self._store.mark_revoked(self.user, self.refresh_token)
        except CredentialsError as unwritten:
            return verdict(unwritten, f"marking user {shown(self.user)} as revoked")
        if marked:
            return decided
        return Retry(f"{decided.reason}, but there is another one meanwhile", delay=1.0)

    def _keep_refresh_token(self) -> None:
        if self._latest == self.refresh_token:
            return
        if self._store.rotate(self.user, self.refresh_token, self._latest):
            self.refresh_token = self._latest
