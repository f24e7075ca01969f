from __future__ import annotations

import http.client
import json
import socket
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httplib2
import msgspec
import pytest
import requests
from google.auth.exceptions import RefreshError, TransportError
from googleapiclient.discovery import build_from_document
from googleapiclient.errors import HttpError

from glassq.dev.simulator.media import Media
from glassq.errors import Bury, CredentialsError, Drop, Retry, SettingsError, UserRevoked, UserUnknown, Verdict
from glassq.glass.api import CHUNK, MirrorApi, discovery_document
from glassq.glass.subscriptions import subscribe
from glassq.glass.tokens import MAX_USERS
from glassq.glass.verdicts import LIBRARY_ERRORS, invalid_grant, verdict
from glassq.headers import retry_delay
from tests.conftest import free_port
from tests.proxy import Proxy

if TYPE_CHECKING:
    from pathlib import Path

    from tests.glass.conftest import Room
    from tests.proxy import Way

USER = "115567334"
JPEG = b"\xff\xd8\xff\xe0" + bytes(range(256)) * 1000
MEDIA = "timeline.attachments.get_media"

# Every method of the Mirror API v1: id, verb, path.
METHODS = {
    "timeline.list": "GET timeline",
    "timeline.get": "GET timeline/{id}",
    "timeline.delete": "DELETE timeline/{id}",
    "timeline.insert": "POST timeline",
    "timeline.update": "PUT timeline/{id}",
    "timeline.patch": "PATCH timeline/{id}",
    "timeline.attachments.get": "GET timeline/{itemId}/attachments/{attachmentId}",
    "timeline.attachments.list": "GET timeline/{itemId}/attachments",
    "timeline.attachments.insert": "POST timeline/{itemId}/attachments",
    "timeline.attachments.delete": "DELETE timeline/{itemId}/attachments/{attachmentId}",
    "subscriptions.insert": "POST subscriptions",
    "subscriptions.list": "GET subscriptions",
    "subscriptions.update": "PUT subscriptions/{id}",
    "subscriptions.delete": "DELETE subscriptions/{id}",
    "locations.get": "GET locations/{id}",
    "locations.list": "GET locations",
    "contacts.get": "GET contacts/{id}",
    "contacts.list": "GET contacts",
    "contacts.insert": "POST contacts",
    "contacts.patch": "PATCH contacts/{id}",
    "contacts.update": "PUT contacts/{id}",
    "contacts.delete": "DELETE contacts/{id}",
    "settings.get": "GET settings/{id}",
}


# The discovery document


def _methods(resources: dict[str, Any]) -> list[dict[str, Any]]:
    found = []
    for resource in resources.values():
        found += [*resource.get("methods", {}).values(), *_methods(resource.get("resources", {}))]
    return found


def _refs(value: object) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*(_refs(each) for each in value.values()))
    return set().union(*(_refs(each) for each in value)) if isinstance(value, list) else set()


def test_the_discovery_document_has_every_method_of_the_api() -> None:
    methods = _methods(discovery_document()["resources"])
    described = {each["id"].removeprefix("mirror."): f"{each['httpMethod']} {each['path']}" for each in methods}
    assert described == METHODS


def test_the_discovery_document_describes_every_schema_and_path_parameter_it_names() -> None:
    document = discovery_document()
    assert _refs(document) <= set(document["schemas"])
    for method in _methods(document["resources"]):
        in_path = [part[1:-1] for part in method["path"].split("/") if part.startswith("{")]
        assert method.get("parameterOrder", []) == in_path
        assert [name for name, each in method.get("parameters", {}).items() if each.get("required")] == in_path


def test_google_s_client_builds_media_requests_from_the_document() -> None:
    service = build_from_document(discovery_document(), http=httplib2.Http())
    attachments = service.timeline().attachments()
    assert attachments.get_media(itemId="i", attachmentId="ps:1/2").uri == (
        "https://www.googleapis.com/mirror/v1/timeline/i/attachments/ps%3A1%2F2?alt=media"
    )
    listing = service.timeline().list(maxResults=5, orderBy="writeTime", includeDeleted=True, sourceItemId="x")
    assert "orderBy=writeTime" in listing.uri
    with pytest.raises(TypeError, match="orderBy"):
        service.timeline().list(orderBy="sideways")
    service.close()


# What errors come to


def answer(status: int, reason: str = "", **headers: str) -> HttpError:
    error = {"error": {"code": status, "message": "m", "errors": [{"domain": "global", "reason": reason}]}}
    body = json.dumps(error).encode() if reason else b"<html>"
    return HttpError(httplib2.Response({"status": str(status), **headers}), body)


def refused(code: object) -> RefreshError:
    return RefreshError("text", {"error": code, "error_description": "secret-ish"})


def unreadable() -> CredentialsError:
    error = CredentialsError("f: cannot be read")
    error.__cause__ = OSError(5, "Input/output error")
    return error


@pytest.mark.parametrize(
    ("error", "kind", "delay", "words"),
    [
        (answer(404, "notFound"), Drop, None, "gone: D"),
        (answer(410, "deleted"), Drop, None, "gone: D"),
        (answer(404), Retry, None, "404 without a reason"),
        (answer(410, **{"retry-after": "9"}), Retry, 9, "410 without a reason"),
        (answer(403, "rateLimitExceeded"), Retry, None, "rateLimitExceeded"),
        (answer(403, "RATE_LIMIT_EXCEEDED"), Retry, None, "RATE_LIMIT_EXCEEDED"),
        (answer(403, "userRateLimitExceeded", **{"retry-after": "9"}), Retry, 9, "userRateLimitExceeded"),
        (answer(403, "dailyLimitExceeded"), Retry, 3600, "quota is used up"),
        (answer(403, "dailyLimitExceededUnreg"), Retry, 3600, "quota is used up"),
        (answer(403, "quotaExceeded", **{"retry-after": "9"}), Retry, 3600, "quota is used up"),
        (answer(403, "quotaExceeded", **{"retry-after": "7200"}), Retry, 7200, "quota is used up"),
        (answer(403, "insufficientPermissions"), Bury, None, "insufficientPermissions"),
        (answer(403, "accessNotConfigured"), Retry, None, "accessNotConfigured.*not enabled for this project"),
        (answer(403, "forbidden"), Bury, None, "forbidden"),
        (answer(403), Retry, None, "without a reason"),
        (answer(401, "authError"), Retry, None, "fresh access token"),
        (answer(400, "invalid"), Bury, None, "400 .invalid."),
        (answer(405), Bury, None, "405"),
        (answer(408), Retry, None, "408"),
        (answer(429, "rateLimitExceeded", **{"retry-after": "30"}), Retry, 30, "429"),
        (answer(500, "backendError"), Retry, None, "500 .backendError."),
        (answer(503, **{"retry-after": "120"}), Retry, 120, "503"),
        (answer(302), Retry, None, "redirect"),
        (answer(503, "<b>not a reason</b>"), Retry, None, "answers 503$"),
        (refused("invalid_grant"), Bury, None, "consent is revoked or expired"),
        (refused("invalid_client"), Bury, None, "client_secret_file"),
        (refused("unauthorized_client"), Bury, None, "another client"),
        (refused("invalid_scope"), Bury, None, "scopes"),
        (refused("temporarily_unavailable"), Retry, None, "no access token"),
        (refused(["invalid_grant"]), Retry, None, "no access token"),
        (RefreshError("invalid_grant: <html>", retryable=False), Retry, None, "no access token"),
        (RefreshError("invalid_grant", "invalid_grant"), Retry, None, "no access token"),
        (TransportError(OSError("x")), Retry, None, "cannot be reached"),
        (requests.ConnectionError("x"), Retry, None, "cannot be reached"),
        (requests.ReadTimeout("x"), Retry, None, "cannot be reached: ReadTimeout"),
        (requests.exceptions.SSLError("certificate is not yet valid"), Retry, None, "cannot be reached: SSLError"),
        (OSError(socket.EAI_AGAIN, "Temporary failure in name resolution"), Retry, None, "Temporary failure in name"),
        (requests.TooManyRedirects("x"), Retry, None, "redirect"),
        (requests.exceptions.ChunkedEncodingError("x"), Retry, None, "cut short"),
        (http.client.IncompleteRead(b"x"), Retry, None, "cut short"),
        (http.client.BadStatusLine("x"), Retry, None, "cannot be reached"),
        (ConnectionRefusedError(111, "Connection refused"), Retry, None, "cannot be reached: Connection refused"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "x"), Retry, None, "cannot be understood"),
        (UserUnknown("no such user"), Bury, None, "no such user"),
        (UserRevoked("took it back"), Bury, None, "took it back"),
        (CredentialsError("wrong key"), Bury, None, "wrong key"),
        (unreadable(), Retry, None, "cannot be read"),
        (Bury("already decided"), Bury, None, "already decided"),
    ],
)
def test_every_library_error_comes_to_a_verdict(
    error: Exception, kind: type[Verdict], delay: float | None, words: str
) -> None:
    assert isinstance(error, (*LIBRARY_ERRORS, Verdict))
    decided = verdict(error, "D")
    assert type(decided) is kind
    assert getattr(decided, "delay", None) == delay
    with pytest.raises(kind, match=words):
        raise decided
    assert "secret-ish" not in decided.reason


def test_only_the_answers_error_says_that_the_consent_is_gone() -> None:
    assert invalid_grant(refused("invalid_grant"))
    assert not invalid_grant(RefreshError("invalid_grant: Token has been revoked"))
    assert not invalid_grant(refused("invalid_client"))
    assert not invalid_grant(ValueError("invalid_grant"))


NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120),
        (" 7 ", 7),
        ("0", 1),
        ("99999999999", 86_400),
        (format_datetime(NOW + timedelta(seconds=90), usegmt=True), 90),
        (format_datetime(NOW - timedelta(seconds=90), usegmt=True), 1),
        ("Sat, 31 Jan 2026 12:01:00 -0000", 60),
        ("-5", None),
        ("soon", None),
        ("", None),
        (None, None),
        ("\u0661\u0662", None),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_a_date(value: str | None, seconds: float | None) -> None:
    assert retry_delay(value, NOW) == seconds


# One user's part of the API


@pytest.fixture
def user(room: Room) -> str:
    room.consent(USER)
    return USER


def test_the_attachments_of_an_item_can_be_listed(room: Room, user: str) -> None:
    item = room.simulated.share(user, ["jpeg", "mp4"])
    listed = room.account(user).attachments(item.id)
    assert [(each["id"], each["contentType"]) for each in listed] == [
        (each.id, each.content_type) for each in item.attachments
    ]


def test_one_user_cannot_see_another_users_item(room: Room, user: str) -> None:
    room.consent("116")
    item = room.simulated.share("116")
    with pytest.raises(Drop, match="gone"):
        room.account(user).item(item.id)
    assert room.account("116").item(item.id)["id"] == item.id


def test_a_download_comes_in_pieces_of_bounded_size(room: Room, user: str) -> None:
    item = room.simulated.share(user, [Media("image/jpeg", JPEG * 4)])
    with room.account(user).media(item.id, item.attachments[0].id, len(JPEG) * 4) as pieces:
        sizes = [len(piece) for piece in pieces]
    assert sum(sizes) == len(JPEG) * 4
    assert max(sizes) <= CHUNK


def chunked(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data)


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        (chunked(JPEG), JPEG),
        (b"0\r\n\r\n", b""),
        (chunked(JPEG)[:-5], "cut short"),
        (chunked(JPEG)[:1000], "cut short"),
        (b"", "cut short"),
        (b"zzz\r\n", "cut short"),
    ],
)
def test_the_end_of_a_chunked_download_is_checked(room: Room, user: str, body: bytes, outcome: bytes | str) -> None:
    item = room.simulated.share(user)
    headers = {"Transfer-Encoding": "chunked", "Content-Type": "image/jpeg", "Connection": "close"}
    room.simulated.fail_next(MEDIA, 200, headers=headers, body=body)
    with room.account(user).media(item.id, item.attachments[0].id, 1 << 20) as pieces:
        if isinstance(outcome, bytes):
            assert b"".join(pieces) == outcome
        else:
            with pytest.raises(Retry, match=outcome):
                b"".join(pieces)


def test_a_chunked_download_is_counted_against_the_limit(room: Room, user: str) -> None:
    item = room.simulated.share(user)
    headers = {"Transfer-Encoding": "chunked", "Content-Type": "image/jpeg", "Connection": "close"}
    room.simulated.fail_next(MEDIA, 200, headers=headers, body=chunked(JPEG))
    with (
        room.account(user).media(item.id, item.attachments[0].id, len(JPEG) - 1) as pieces,
        pytest.raises(Bury, match="larger than"),
    ):
        b"".join(pieces)


def test_a_download_that_announces_too_much_is_not_begun(room: Room, user: str) -> None:
    item = room.simulated.share(user)
    (attachment,) = item.attachments
    with (
        pytest.raises(Bury, match="larger than"),
        room.account(user).media(item.id, attachment.id, len(attachment.data) - 1),
    ):
        pytest.fail("the download began")


def test_a_download_whose_end_could_not_be_told_is_not_begun(room: Room, user: str) -> None:
    item = room.simulated.share(user)
    headers = {"Content-Length": "", "Content-Type": "image/jpeg", "Connection": "close"}
    room.simulated.fail_next(MEDIA, 200, headers=headers, body=JPEG)
    with (
        pytest.raises(Retry, match="no length is announced"),
        room.account(user).media(item.id, item.attachments[0].id, 1 << 20),
    ):
        pytest.fail("the download began")


def test_a_download_ends_when_the_attempt_has_no_time_left(room: Room, user: str) -> None:
    item = room.simulated.share(user, [Media("image/jpeg", JPEG * 4)])
    left = [60.0]
    account = room.glass.mirror.account(user, lambda: left[0])
    with account.media(item.id, item.attachments[0].id, 1 << 30) as pieces:
        next(pieces)
        left[0] = 0.0
        with pytest.raises(Retry, match="no time left"):
            next(pieces)


def test_an_answer_that_takes_longer_than_the_attempt_is_tried_again(room: Room, user: str) -> None:
    item = room.simulated.share(user)
    room.account(user).item(item.id)
    room.simulated.fail_next("timeline.get", mode="slow", seconds=60.0)
    account = room.glass.mirror.account(user, lambda: 0.2)
    with pytest.raises(Retry, match="cannot be reached"):
        account.item(item.id)


def test_an_answer_without_end_is_not_read_into_memory(room: Room, user: str) -> None:
    item = room.simulated.share(user)
    body = b'{"id": "' + b"x" * (9 << 20) + b'"}'
    room.simulated.fail_next("timeline.get", 200, body=body)
    with pytest.raises(Retry, match="no JSON object"):
        room.account(user).item(item.id)


INTERIM = b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"


def hinted(way: Way, data: bytes) -> bytes:
    """Answers as a server sends them that says something before."""
    return INTERIM * 3 + data if way == "back" and data.startswith(b"HTTP/1.1 ") else data


def test_interim_responses_are_not_the_answer(room: Room, user: str) -> None:
    item = room.simulated.share(user)
    glass = room.settings.glass
    with Proxy(urlsplit(glass.api_url).port or 0, hinted) as proxy:
        moved = {
            name: getattr(glass, name).replace(room.simulated.origin, f"http://127.0.0.1:{proxy.port}")
            for name in ("api_url", "token_url")
        }
        room.new_process(**moved)
        room.share(user, item)
        assert proxy.links
    assert list(room.stored().values()) == [item.attachments[0].data]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", socket.gethostname()])
def test_a_proxy_in_the_environment_is_not_asked_for_this_machine(
    room: Room, user: str, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not host_reaches(host):
        pytest.skip(f"{host} is no name of 127.0.0.1 here")
    item = room.simulated.share(user)
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.getsockname()[1]}")
        monkeypatch.setenv("no_proxy", "")
        glass = room.settings.glass
        room.new_process(**{name: getattr(glass, name).replace("127.0.0.1", host) for name in ("api_url", "token_url")})
        room.share(user, item)
        proxy.setblocking(False)
        with pytest.raises(BlockingIOError):
            proxy.accept()
    assert list(room.stored().values()) == [item.attachments[0].data]


def host_reaches(host: str) -> bool:
    try:
        return all(each[4][0] == "127.0.0.1" for each in socket.getaddrinfo(host, 80, socket.AF_INET))
    except OSError:
        return False


def test_a_proxy_in_the_environment_is_asked_for_other_hosts(
    room: Room, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # nobody listens there
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{free_port()}")
    monkeypatch.delenv("no_proxy", raising=False)
    room.new_process(token_url="https://token.example.invalid/token")
    with pytest.raises(Retry, match="cannot be reached: Connection refused"):
        room.account(user).item("any")


def test_a_netrc_file_does_not_replace_the_users_token(
    room: Room, user: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    item = room.simulated.share(user)
    assert room.account(user).item(item.id)["id"] == item.id
    assert room.asked("timeline.get") == 1


# Access tokens


def test_an_access_token_is_asked_for_once_and_kept_in_memory(room: Room, user: str) -> None:
    item = room.simulated.share(user)
    for _ in range(3):
        room.account(user).item(item.id)
    assert room.asked("token") == 1
    room.new_process()
    room.account(user).item(item.id)
    assert room.asked("token") == 2


def test_a_fresh_consent_makes_the_remembered_access_token_worth_nothing(room: Room, user: str) -> None:
    item = room.simulated.share(user)
    room.account(user).item(item.id)
    room.consent(user)
    room.account(user).item(item.id)
    assert room.asked("token") == 2


def test_the_least_recently_used_of_many_users_is_forgotten(room: Room, user: str) -> None:
    item = room.simulated.share(user)
    room.account(user).item(item.id)

    def others(count: int, since: int = 0) -> None:
        for number in range(since, since + count):
            room.store.add(str(number), "refresh")
            room.account(str(number))

    others(MAX_USERS - 1)
    room.account(user).item(item.id)
    others(MAX_USERS - 1, since=MAX_USERS)
    room.account(user).item(item.id)
    assert room.asked("token") == 1
    others(MAX_USERS, since=2 * MAX_USERS)
    room.account(user).item(item.id)
    assert room.asked("token") == 2


def test_a_rotated_refresh_token_is_stored(room: Room, user: str) -> None:
    item = room.simulated.share(user)
    fresh = {"access_token": "stale", "refresh_token": "1//rotated", "expires_in": 3600}
    room.simulated.fail_next("token", 200, body=json.dumps(fresh))
    room.simulated.fail_next("timeline.get", 500)
    with pytest.raises(Retry, match="500"):
        room.account(user).item(item.id)
    assert room.store.get(user).refresh_token == "1//rotated"


@pytest.mark.parametrize(
    "body",
    [
        '{"expires_in": 3600}',
        '{"access_token": null}',
        '{"access_token": "two\\r\\nlines"}',
        '{"access_token": 7}',
        '{"access_token": "x", "expires_in": "soon"}',
        '{"access_token": "x", "expires_in": [1]}',
        "[]",
        '"text"',
    ],
)
def test_a_token_answer_of_another_shape_is_tried_again(room: Room, user: str, body: str) -> None:
    item = room.simulated.share(user)
    room.simulated.fail_next("token", 200, body=body)
    with pytest.raises(Retry, match=f"access token of user {USER}"):
        room.account(user).item(item.id)
    assert room.account(user).item(item.id)["id"] == item.id


def test_a_token_answer_without_a_refresh_token_leaves_the_stored_one(room: Room, user: str) -> None:
    stored = room.store.get(user).refresh_token
    room.simulated.fail_next("token", 200, body='{"access_token": "stale", "refresh_token": null}')
    item = room.simulated.share(user)
    assert room.account(user).item(item.id)["id"] == item.id
    assert room.store.get(user).refresh_token == stored


def test_a_missing_client_id_is_a_settings_error(room: Room) -> None:
    glass = msgspec.structs.replace(room.settings.glass, client_id="")
    with pytest.raises(SettingsError, match=r"\[glass\] client_id"):
        MirrorApi(msgspec.structs.replace(room.settings, glass=glass), room.store)


# Subscriptions


def test_subscribing_listing_and_unsubscribing(room: Room, user: str) -> None:
    callback = "http://127.0.0.1:8080/hooks/mirror"
    made = subscribe(room.settings, user, "timeline", callback, "hush", ["INSERT", "UPDATE"])
    assert made["id"] == "timeline"
    assert made["callbackUrl"] == callback
    assert "hush" not in str(made)
    kept = room.simulated.subscription(user)
    assert (kept.user_token, kept.verify_token, kept.operation) == (user, "hush", ("INSERT", "UPDATE"))
    account = room.account(user)
    assert [each["collection"] for each in account.subscriptions()] == ["timeline"]
    account.unsubscribe("timeline")
    assert account.subscriptions() == []
    with pytest.raises(Drop, match=f"subscription timeline of user {USER}"):
        account.unsubscribe("timeline")


def test_a_subscription_needs_no_verify_token_and_no_operations(room: Room, user: str) -> None:
    subscribe(room.settings, user, "locations", "https://glass.example/hooks/mirror", None)
    kept = room.simulated.subscription(user, "locations")
    assert (kept.verify_token, kept.operation) == (None, ())


@pytest.mark.parametrize(
    ("collection", "callback", "operations", "words"),
    [
        ("timeline", "http://glass.example/hooks", [], "https"),
        ("timeline", "ftp://127.0.0.1/", [], "https"),
        ("timeline", "", [], "https"),
        ("contacts", "https://glass.example/hooks", [], "timeline, locations, settings"),
        ("timeline", "https://glass.example/hooks", ["SHARE"], "INSERT, UPDATE"),
    ],
)
def test_a_subscription_that_cannot_be_is_refused_before_google_is_asked(
    room: Room, user: str, collection: str, callback: str, operations: list[str], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        subscribe(room.settings, user, collection, callback, "hush", operations)
    assert room.simulated.requests == []


def test_subscribing_a_user_without_consent_names_the_user(room: Room) -> None:
    with pytest.raises(Bury, match=f"user {USER}"):
        subscribe(room.settings, USER, "timeline", "https://glass.example/hooks", "hush")
