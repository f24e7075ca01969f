"""The Mirror API, for one user at a time.

Google's client makes the requests from our own discovery document (no discovery service has the API any more) and reads
the answers. One requests session carries API calls, downloads and token requests, so timeouts, refused redirects and
the renewal of an access token are the same for all three. Nothing is tried twice here, because the queue does the
waiting. Every error is raised as Retry, Drop or Bury (see verdicts.py).
"""

from __future__ import annotations

import importlib.resources
import json
from contextlib import closing, contextmanager
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING, Any

import httplib2
import requests
from google.api_core.client_options import ClientOptions
from googleapiclient.discovery import build_from_document
from googleapiclient.errors import HttpError

from glassq.errors import Bury, Drop, Retry, SettingsError
from glassq.glass import transport
from glassq.glass.names import check_attachment, check_item, shown
from glassq.glass.tokens import Tokens
from glassq.glass.verdicts import LIBRARY_ERRORS, verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from glassq.glass.credentials import CredentialStore
    from glassq.glass.tokens import Access, Timeout
    from glassq.settings import Settings

# In seconds. A healthy Mirror API answers in well under a second; longer waiting is the queue's work.
CONNECT_TIMEOUT = 3.0
READ_TIMEOUT = 30.0
# Size of one piece of a download, in bytes; only one is in memory at a time.
CHUNK = 64 << 10
# Attachments are audio, images and video only. Content of these types is a message from a proxy or from the API.
NOT_MEDIA = ("text/html", "application/json")
# Maximum size of an API answer, in bytes. A timeline item has a few KiB.
MAX_ANSWER = 8 << 20


class MirrorApi:
    """The API for all users of one process. Make it after the fork: it keeps connections."""

    def __init__(self, settings: Settings, store: CredentialStore) -> None:
        """Raises SettingsError if the OAuth client's id or secret is missing."""
        if not settings.glass.client_id:
            raise SettingsError(f'{settings.file}: [glass] client_id = "": expected the OAuth client\'s id')
        self._session = _session()
        self._tokens = Tokens(settings, store, self._session)
        self._service = build_from_document(
            discovery_document(),
            # A placeholder, so that nothing looks for default credentials: every call brings its own transport.
            http=httplib2.Http(timeout=READ_TIMEOUT),
            client_options=ClientOptions(api_endpoint=settings.glass.api_url.rstrip("/") + "/"),
        )

    def account(self, user: str, remaining: Callable[[], float] = lambda: float("inf")) -> Account:
        """The API as this user. `remaining` returns the seconds left for the whole attempt.

        Raises Bury if there is no consent, Retry if it cannot be read now.
        """
        with _typed(f"credentials of user {shown(user)}"):
            access = self._tokens.access(user)
        return Account(user, self._service, _Transport(self._session, access, remaining))

    def close(self) -> None:
        """Closes the connections."""
        self._service.close()
        self._session.close()


class Account:
    """One user's part of the API. Answers are the API's JSON objects; every method raises Retry, Drop or Bury."""

    def __init__(self, user: str, service: Any, transport: _Transport) -> None:
        self.user = user
        self._service = service
        self._transport = transport

    def item(self, item: str) -> dict[str, Any]:
        """The timeline item with this id. Raises Drop if it is gone, Bury if the API returns another one."""
        doing = self._doing(f"timeline item {check_item(item)}")
        answer = self._call(self._service.timeline().get(id=item), doing)
        if answer.get("id") != item:
            raise Bury(f"{doing}: the Mirror API answers item {shown(str(answer.get('id')))} instead")
        return answer

    def attachments(self, item: str) -> list[dict[str, Any]]:
        """The API's list of a timeline item's attachments (id, contentType, isProcessingContent)."""
        doing = self._doing(f"attachments of timeline item {check_item(item)}")
        return _items(self._call(self._service.timeline().attachments().list(itemId=item), doing))

    @contextmanager
    def media(self, item: str, attachment: str, limit: int) -> Iterator[Iterator[bytes]]:
        """An attachment's content, piece by piece; the connection is closed at the end of the `with`.

        The URL is made from the ids, never taken from the item's contentUrl: an authorised request to an address
        from outside would leak the user's token. The iterator raises Bury if there are more than `limit` bytes, and
        Retry if the download is cut short, so that the writer leaves nothing half done.
        """
        doing = self._doing(f"attachment {check_attachment(attachment, item)} of timeline item {check_item(item)}")
        uri = self._service.timeline().attachments().get_media(itemId=item, attachmentId=attachment).uri
        with _typed(doing):
            response = self._transport.send(uri, "GET", None, {"accept-encoding": "identity"})
        with closing(response):
            length = self._check_media(response, uri, limit, doing)
            yield self._pieces(response, length, limit, doing)

    def subscribe(self, subscription: dict[str, Any]) -> dict[str, Any]:
        """Creates a subscription (collection, callbackUrl, userToken, verifyToken, operation[]).

        Returns the API's answer.
        """
        request = self._service.subscriptions().insert(body=subscription)
        return self._call(request, self._doing("new subscription"))

    def subscriptions(self) -> list[dict[str, Any]]:
        """This user's subscriptions for our client."""
        return _items(self._call(self._service.subscriptions().list(), self._doing("subscriptions")))

    def unsubscribe(self, subscription: str) -> None:
        """Deletes a subscription by its id (which equals the collection). Raises Drop if there is none."""
        doing = self._doing(f"subscription {shown(subscription)}")
        with _typed(doing):
            self._service.subscriptions().delete(id=subscription).execute(http=self._transport, num_retries=0)

    def _doing(self, what: str) -> str:
        return f"{what} of user {shown(self.user)}"

    def _call(self, request: Any, doing: str) -> dict[str, Any]:
        with _typed(doing):
            answer = request.execute(http=self._transport, num_retries=0)
        # If the answer is not JSON, such as a proxy's HTML with status 200, Google's client returns a str.
        if not isinstance(answer, dict):
            raise Retry(f"{doing}: the Mirror API answers something that is no JSON object")
        return answer

    def _check_media(self, response: requests.Response, uri: str, limit: int, doing: str) -> int | None:
        """The announced length, or None if the transfer itself shows its end (chunked, compressed)."""
        if response.status_code != 200:
            with _typed(doing):
                refused = HttpError(_as_httplib2(response), _read(response), uri=uri)
            decided = verdict(refused, doing)
            # The item existed a moment ago. If it is gone by now, the next attempt drops the delivery.
            raise Retry(decided.reason) if isinstance(decided, Drop) else decided
        headers = response.headers
        if headers.get("content-type", "").lower().startswith(NOT_MEDIA):
            raise Retry(f"{doing}: a page or a message comes instead of the content")
        if "content-encoding" in headers or "chunked" in headers.get("transfer-encoding", "").lower():
            return None
        if not headers.get("content-length", "").isdigit():
            raise Retry(f"{doing}: no length is announced, so a download that is cut short could not be told")
        length = int(headers["content-length"])
        if length > limit:
            raise _too_large(doing, limit)
        return length

    def _pieces(self, response: requests.Response, length: int | None, limit: int, doing: str) -> Iterator[bytes]:
        count = 0
        with _typed(doing):
            for piece in response.iter_content(CHUNK):
                count += len(piece)
                if count > limit:
                    raise _too_large(doing, limit)
                if self._transport.remaining() <= 0:
                    raise Retry(f"{doing}: no time left after {count} bytes")
                yield piece
        # without an announced length the library checks: it raises if the end of the transfer is missing
        if length is not None and count != length:
            raise Retry(f"{doing}: the download is cut short: {count} of {length} bytes")


class _Transport:
    """Looks like an httplib2.Http to Google's client; sends by our session with one user's access token."""

    def __init__(self, session: requests.Session, access: Access, remaining: Callable[[], float]) -> None:
        self.remaining = remaining
        self._session = session
        self._access = access

    def request(
        self,
        uri: str,
        method: str = "GET",
        body: bytes | str | None = None,
        headers: dict[str, str] | None = None,
        **_: object,
    ) -> tuple[httplib2.Response, bytes]:
        """The whole answer in httplib2's form. Raises what requests raises, Retry and Bury."""
        with closing(self.send(uri, method, body, headers or {})) as response:
            return _as_httplib2(response), _read(response)

    def send(self, uri: str, method: str, body: bytes | str | None, headers: dict[str, str]) -> requests.Response:
        """The answer with its body unread. Renews a refused access token once."""
        response = self._send(uri, method, body, headers)
        if response.status_code != 401:
            return response
        response.close()
        self._access.renew(self._timeout())
        return self._send(uri, method, body, headers)

    def _send(self, uri: str, method: str, body: bytes | str | None, headers: dict[str, str]) -> requests.Response:
        authorized = {**headers, "authorization": self._access.bearer(self._timeout())}
        return self._session.request(
            method,
            uri,
            data=body,
            headers=authorized,
            stream=True,
            allow_redirects=False,
            timeout=self._timeout(),
        )

    def _timeout(self) -> Timeout:
        # the library refuses 0; an attempt without time left is ended by the deadline itself
        left = max(self.remaining(), 0.1)
        return min(CONNECT_TIMEOUT, left), min(READ_TIMEOUT, left)


def discovery_document() -> dict[str, Any]:
    """The Mirror API's discovery document, revision 20180315, written out for glassq."""
    text = importlib.resources.files("glassq.glass").joinpath("mirror.v1.json").read_text("utf-8")
    document: dict[str, Any] = json.loads(text)
    return document


@contextmanager
def _typed(doing: str) -> Iterator[None]:
    try:
        yield
    except LIBRARY_ERRORS as error:
        # from None: evidence contains tracebacks, and the libraries' messages quote the server.
        raise verdict(error, doing) from None


def _session() -> requests.Session:
    session = requests.Session()
    # Redirects are not followed; the token request carries the client's secret.
    session.max_redirects = 0
    # Cookies must not pass from one user to another.
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    # With any auth set, requests does not replace our Authorization header by one from ~/.netrc.
    session.auth = lambda request: request
    transport.mount(session)
    return session


def _items(answer: dict[str, Any]) -> list[dict[str, Any]]:
    items = answer.get("items")
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def _as_httplib2(response: requests.Response) -> httplib2.Response:
    answer = httplib2.Response({**response.headers, "status": str(response.status_code)})
    answer.reason = response.reason
    return answer


def _read(response: requests.Response) -> bytes:
    """The body, cut at MAX_ANSWER; cut JSON is then refused as invalid."""
    body = bytearray()
    for piece in response.iter_content(CHUNK):
        body += piece
        if len(body) > MAX_ANSWER:
            break
    return bytes(body)


def _too_large(doing: str, limit: int) -> Bury:
    return Bury(f"{doing}: larger than {limit} bytes ([glass] max_attachment)")
