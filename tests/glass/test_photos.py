from __future__ import annotations

import json
import threading
import traceback
from pathlib import Path

import msgspec
import pytest

from glassq.dev.simulator.glass import HTML
from glassq.dev.simulator.media import Media
from glassq.errors import Bury, Drop, Interrupted, Retry, Verdict
from glassq.settings import StorageSettings
from glassq.values import StorageUrl
from tests.fakes.gcs import FakeGcs
from tests.glass.conftest import Room

USER = "115567334"
GET, MEDIA = "timeline.get", "timeline.attachments.get_media"


def only(room: Room) -> bytes:
    (content,) = room.stored().values()
    return content


@pytest.fixture
def user(room: Room) -> str:
    room.consent(USER)
    return USER


# What is stored


def test_a_shared_photo_is_stored_under_the_seed_programs_name(room: Room, user: str) -> None:
    item = room.simulated.share(user, ["jpeg"])
    result = room.share(user, item)
    name = f"ugi-{USER}-{item.id}.jpg"
    assert room.stored() == {name: item.attachments[0].data}
    assert result == {"urls": [f"file://{room.photos}/{name}"], "bytes": len(item.attachments[0].data)}


def test_several_attachments_do_not_overwrite_each_other(room: Room, user: str) -> None:
    item = room.simulated.share(user, ["jpeg", "png", "mp4", "jpeg"])
    result = room.share(user, item)
    first, png, mp4, second = item.attachments
    quoted = {each: each.id.replace(":", "%3A").replace("-", "%2D") for each in item.attachments}
    base = f"ugi-{USER}-{item.id}"
    assert room.stored() == {
        f"{base}.jpg": first.data,
        f"{base}-{quoted[png]}.png": png.data,
        f"{base}-{quoted[mp4]}.mp4": mp4.data,
        f"{base}-{quoted[second]}.jpg": second.data,
    }
    assert isinstance(result, dict)
    assert len(result["urls"]) == 4
    assert result["bytes"] == sum(len(each.data) for each in item.attachments)


def test_a_live_stream_is_skipped_and_the_first_photo_after_it_gets_the_short_name(room: Room, user: str) -> None:
    item = room.simulated.share(user, ["stream", "png"])
    room.share(user, item)
    assert room.stored() == {f"ugi-{USER}-{item.id}.png": item.attachments[1].data}


def test_an_item_with_nothing_to_store_is_dropped(room: Room, user: str) -> None:
    for kinds in ([], ["stream"]):
        with pytest.raises(Drop, match="no attachments to store"):
            room.share(user, room.simulated.share(user, kinds))
    assert room.stored() == {}


def test_content_off_the_list_is_stored_as_bin(room: Room, user: str) -> None:
    item = room.simulated.share(user, [Media("image/svg+xml", b"<svg onload='x()'/>")])
    room.share(user, item)
    assert room.stored() == {f"ugi-{USER}-{item.id}.bin": b"<svg onload='x()'/>"}


@pytest.mark.parametrize(
    ("data", "stored_as"),
    [
        (b"\xff\xd8\xff\xe0JFIF", "image/jpeg"),
        (b"<!DOCTYPE html><p>", "application/octet-stream"),
        (b"", "application/octet-stream"),
    ],
)
def test_the_first_bytes_decide_the_content_type_in_a_bucket(
    room: Room, user: str, monkeypatch: pytest.MonkeyPatch, data: bytes, stored_as: str
) -> None:
    item = room.simulated.share(user, [Media("image/jpeg", data)])
    with FakeGcs("photos") as gcs:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs.url)
        room.settings = msgspec.structs.replace(room.settings, storage=StorageSettings(url=StorageUrl("gs://photos")))
        room.new_process()
        result = room.share(user, item)
        assert room.share(user, item) == result
        room.glass.close()
    name = f"ugi-{USER}-{item.id}.jpg"
    stored = gcs.objects["photos", name]
    assert result == {"urls": [f"gs://photos/{name}"], "bytes": len(data)}
    assert (stored.data, stored.resource["contentType"]) == (data, stored_as)
    assert stored.resource["metadata"].keys() == {"item", "attachment", "delivery"}
    assert stored.resource["metadata"]["attachment"] == item.attachments[0].id


def test_a_repeated_ping_downloads_nothing_again_and_has_the_same_result(room: Room, user: str) -> None:
    item = room.simulated.share(user, ["jpeg", "png"])
    first = room.share(user, item)
    room.new_process()
    assert room.share(user, item) == first
    assert room.asked(MEDIA) == 2


def test_two_pings_worked_at_once_store_the_photo_once(room: Room, user: str) -> None:
    item = room.simulated.share(user, ["jpeg"])
    room.simulated.fail_next(MEDIA, mode="slow", seconds=0.3)
    results: list[object] = []

    def work(process: Room) -> None:
        results.append(process.share(user, item))

    racers = [Room(room.simulated, room.settings, room.photos) for _ in range(2)]
    threads = [threading.Thread(target=work, args=(racer,)) for racer in racers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    for racer in racers:
        racer.close()
    assert len(results) == 2
    assert results[0] == results[1]
    assert only(room) == item.attachments[0].data


def test_an_empty_photo_is_stored_as_an_empty_file_at_the_first_attempt(room: Room, user: str) -> None:
    item = room.simulated.share(user, [Media("image/jpeg", b""), "png"])
    result = room.share(user, item)
    assert room.stored()[f"ugi-{USER}-{item.id}.jpg"] == b""
    assert isinstance(result, dict)
    assert (len(result["urls"]), result["bytes"]) == (2, len(item.attachments[1].data))
    assert room.share(user, item) == result
    assert room.asked(MEDIA) == 2


@pytest.mark.parametrize("name", ["ж" * 60, "👓" * 100, "e\u0301" * 128, "..", "." * 300, "u" * 512])
def test_a_user_whose_id_is_long_in_bytes_has_photos_stored_and_deleted(room: Room, name: str) -> None:
    room.consent(name)
    room.new_process(on_delete="delete")
    item, other = room.simulated.share(name, ["jpeg", "png"]), room.simulated.share(name, ["jpeg"])
    room.share(name, item)
    names = sorted(room.stored())
    assert sorted(room.stored().values()) == sorted(each.data for each in item.attachments)
    room.share(name, other)
    assert room.handle(room.ping(name, item, "DELETE")) == {"deleted": names}
    assert only(room) == other.attachments[0].data


# Which pings are worked


@pytest.mark.parametrize("operation", ["INSERT", "UPDATE", "DELETE", None])
def test_share_decides_whatever_the_operation_says(room: Room, user: str, operation: str | None) -> None:
    item = room.simulated.share(user)
    room.handle(room.ping(user, item, "SHARE", operation=operation))
    assert only(room) == item.attachments[0].data


@pytest.mark.parametrize("actions", [None, []])
def test_a_ping_without_user_actions_is_taken_for_a_share(room: Room, user: str, actions: object) -> None:
    item = room.simulated.share(user)
    room.handle(room.ping(user, item, userActions=actions))
    assert only(room) == item.attachments[0].data


def test_a_ping_that_has_no_user_actions_key_is_taken_for_a_share(room: Room, user: str) -> None:
    item = room.simulated.share(user)
    room.handle({"collection": "timeline", "itemId": item.id, "userToken": user})
    assert only(room) == item.attachments[0].data


@pytest.mark.parametrize("action", ["REPLY", "CUSTOM", "PIN", "LAUNCH", "SOMETHING_NEW", ""])
def test_other_actions_are_dropped_without_asking_google(room: Room, user: str, action: str) -> None:
    ping = room.ping(user, room.simulated.share(user), userActions=[{"type": action, "payload": None}])
    with pytest.raises(Drop, match="no SHARE"):
        room.handle(ping)
    assert room.simulated.requests == []


def test_share_beside_unknown_actions_counts(room: Room, user: str) -> None:
    item = room.simulated.share(user)
    room.handle(room.ping(user, item, userActions=[{"type": "NEW", "more": 1}, {}, {"type": "SHARE"}], more=[1]))
    assert only(room) == item.attachments[0].data


@pytest.mark.parametrize("collection", ["locations", "settings", "x\ny"])
def test_other_collections_are_dropped(room: Room, collection: str) -> None:
    with pytest.raises(Drop, match="only timeline items"):
        room.handle(room.ping(USER, "latest", collection=collection))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b"[]",
        b"null",
        b'{"itemId": "x"}',
        b'{"collection": 7}',
        b'{"collection": "timeline", "itemId": 7}',
        b'{"collection": "timeline", "itemId": "x", "userToken": ["u"]}',
        b'{"collection": "timeline", "itemId": "x", "userActions": {"type": "SHARE"}}',
        b'{"collection": "timeline", "itemId": "x", "userActions": [{"type": 7}]}',
        b'{"collection": "\xff"}',
    ],
)
def test_a_body_that_is_no_ping_is_buried(room: Room, body: bytes) -> None:
    with pytest.raises(Bury, match="not a ping"):
        room.handle(body)


@pytest.mark.parametrize("item", ["../../x", "a b", "", "x" * 200])
def test_an_item_id_that_is_none_is_buried_before_google_is_asked(room: Room, user: str, item: str) -> None:
    with pytest.raises(Bury, match="expected an id"):
        room.share(user, item)
    assert room.simulated.requests == []


def test_a_ping_without_a_user_is_buried(room: Room) -> None:
    for token in (None, ""):
        with pytest.raises(Bury, match="no userToken"):
            room.handle(room.ping(USER, "abc", userToken=token))


# Deletions


@pytest.mark.parametrize("ping", [{"userActions": [{"type": "DELETE"}]}, {"userActions": None, "operation": "DELETE"}])
def test_a_deletion_keeps_what_is_stored_by_default(room: Room, user: str, ping: dict[str, object]) -> None:
    item = room.simulated.share(user)
    room.share(user, item)
    with pytest.raises(Drop, match="deleted on Glass; kept"):
        room.handle(room.ping(user, item, **ping))
    assert only(room) == item.attachments[0].data


def test_a_deletion_deletes_exactly_the_items_photos_where_settings_say_so(room: Room, user: str) -> None:
    room.new_process(on_delete="delete")
    item, other = room.simulated.share(user, ["jpeg", "png"]), room.simulated.share(user, ["jpeg"])
    room.share(user, item)
    names = sorted(room.stored())
    room.share(user, other)
    longer = room.photos / f"ugi-{USER}-{item.id}-1.jpg"
    longer.write_bytes(b"of an item whose id begins with the other's")
    ping = room.ping(user, item, "DELETE", operation="DELETE")
    assert room.handle(ping) == {"deleted": names}
    assert sorted(room.stored()) == sorted([longer.name, f"ugi-{USER}-{other.id}.jpg"])
    assert room.handle(ping) == {"deleted": []}


# What the API says about the item


@pytest.mark.parametrize("trace", [True, False])
def test_an_item_that_is_gone_is_dropped(room: Room, user: str, trace: bool) -> None:
    item = room.simulated.share(user)
    room.simulated.delete_item(user, item.id, trace=trace)
    with pytest.raises(Drop, match=f"gone.*{item.id}.*{USER}"):
        room.share(user, item)


def test_an_item_answered_with_410_is_dropped(room: Room, user: str) -> None:
    room.simulated.fail_next(GET, 410, "deleted")
    with pytest.raises(Drop, match="gone"):
        room.share(user, room.simulated.share(user))


def test_another_item_than_the_one_asked_for_is_buried(room: Room, user: str) -> None:
    room.simulated.fail_next(GET, 200, body='{"id": "another", "attachments": []}')
    with pytest.raises(Bury, match="answers item another instead"):
        room.share(user, room.simulated.share(user))


@pytest.mark.parametrize("attachment", [{}, {"id": ".."}, {"id": 7}, {"id": "a/\u00e9"}])
def test_an_attachment_id_that_is_none_is_buried(room: Room, user: str, attachment: object) -> None:
    item = room.simulated.share(user)
    room.simulated.fail_next(GET, 200, body=json.dumps({"id": item.id, "attachments": [attachment]}))
    with pytest.raises(Bury, match="attachment"):
        room.share(user, item)


@pytest.mark.parametrize("attachments", [None, 7, "x", [None, 7]])
def test_attachments_of_another_shape_are_none(room: Room, user: str, attachments: object) -> None:
    item = room.simulated.share(user)
    room.simulated.fail_next(GET, 200, body=json.dumps({"id": item.id, "attachments": attachments}))
    with pytest.raises(Drop, match="no attachments"):
        room.share(user, item)


def test_a_content_url_is_never_followed(room: Room, user: str) -> None:
    item = room.simulated.share(user)
    (attachment,) = item.attachments
    trap = room.simulated.origin + "/trap"
    form = {"id": attachment.id, "contentType": "image/jpeg", "contentUrl": trap}
    room.simulated.fail_next(GET, 200, body=json.dumps({"id": item.id, "attachments": [form]}))
    room.share(user, item)
    assert only(room) == attachment.data
    assert not any(request.path.startswith("/trap") for request in room.simulated.requests)


# Processing


def test_a_photo_that_glass_still_processes_is_waited_for_without_spending_the_budget(room: Room, user: str) -> None:
    item = room.simulated.share(user, processing_for=3600)
    with pytest.raises(Retry, match=f"still processes attachment {item.attachments[0].id}") as caught:
        room.share(user, item)
    assert caught.value.delay == 15
    assert not caught.value.counts
    assert room.stored() == {}


@pytest.mark.parametrize(("waits", "delay"), [(0, 15), (1, 30), (3, 120), (5, 480), (6, 600), (5000, 600)])
def test_waiting_for_a_photo_gets_slower_up_to_ten_minutes(room: Room, user: str, waits: int, delay: float) -> None:
    ping = room.ping(user, room.simulated.share(user, processing_for=3600))
    with pytest.raises(Retry) as caught:
        room.handle(ping, waits=waits)
    assert caught.value.delay == delay


def test_a_photo_that_is_never_ready_is_buried_when_patience_ends(room: Room, user: str) -> None:
    ping = room.ping(user, room.simulated.share(user, processing_for=3600))
    with pytest.raises(Retry):
        room.handle(ping, age=6 * 3600 - 60)
    with pytest.raises(Bury, match="more than 6h"):
        room.handle(ping, age=6 * 3600 + 60)


def test_photos_that_are_ready_do_not_wait_for_the_others(room: Room, user: str) -> None:
    item = room.simulated.share(user, ["jpeg", "png"])
    first, second = item.attachments
    forms = [
        {"id": first.id, "contentType": "image/jpeg", "isProcessingContent": True},
        {"id": second.id, "contentType": "image/png"},
    ]
    room.simulated.fail_next(GET, 200, body=json.dumps({"id": item.id, "attachments": forms}))
    with pytest.raises(Retry, match="still processes"):
        room.share(user, item)
    assert only(room) == second.data
    room.share(user, item)
    assert room.stored()[f"ugi-{USER}-{item.id}.jpg"] == first.data
    assert len(room.stored()) == 2


def test_no_photo_is_named_before_it_is_known_which_is_the_first(room: Room, user: str) -> None:
    item = room.simulated.share(user, ["stream", "jpeg"])
    stream, photo = item.attachments
    forms = [{"id": stream.id, "isProcessingContent": True}, {"id": photo.id, "contentType": "image/jpeg"}]
    room.simulated.fail_next(GET, 200, body=json.dumps({"id": item.id, "attachments": forms}))
    with pytest.raises(Retry, match="still processes"):
        room.share(user, item)
    room.share(user, item)
    assert list(room.stored()) == [f"ugi-{USER}-{item.id}.jpg"]


# Consents


def test_an_unknown_user_is_buried_by_name(room: Room) -> None:
    with pytest.raises(Bury, match=f"no credentials for user {USER}"):
        room.share(USER, "abc")


def test_a_revoked_consent_is_buried_and_marked_and_not_tried_again(room: Room, user: str) -> None:
    item = room.simulated.share(user)
    room.simulated.revoke(user)
    with pytest.raises(Bury, match=f"user {USER}.*invalid_grant"):
        room.share(user, item)
    asked = room.asked("token")
    with pytest.raises(Bury, match=f"user {USER} has revoked the consent"):
        room.share(user, item)
    assert room.asked("token") == asked
    assert room.store.list().users[0].state == "revoked"


def test_a_consent_revoked_while_its_access_token_is_remembered_is_buried_too(room: Room, user: str) -> None:
    room.share(user, room.simulated.share(user))
    room.simulated.revoke(user)
    with pytest.raises(Bury, match="invalid_grant"):
        room.share(user, room.simulated.share(user))


def test_a_kick_after_a_fresh_consent_stores_the_photo(room: Room, user: str) -> None:
    item = room.simulated.share(user)
    room.simulated.revoke(user)
    with pytest.raises(Bury):
        room.share(user, item)
    room.consent(user)
    room.share(user, item)
    assert only(room) == item.attachments[0].data


def test_a_consent_given_meanwhile_is_not_marked_revoked(room: Room, user: str) -> None:
    item = room.simulated.share(user)
    account = room.account(user)
    room.consent(user)
    with pytest.raises(Retry, match="another one meanwhile"):
        account.item(item.id)
    room.share(user, item)
    assert only(room) == item.attachments[0].data


def test_credentials_that_cannot_be_read_now_are_tried_again_and_a_wrong_key_is_buried(room: Room, user: str) -> None:
    item = room.simulated.share(user)
    (file,) = (path for path in Path(room.settings.glass.credentials).iterdir() if len(path.name) == 64)
    content = file.read_bytes()
    file.unlink()
    file.mkdir()
    with pytest.raises(Retry, match=f"user {USER}.*Is a directory"):
        room.share(user, item)
    file.rmdir()
    file.write_bytes(content[:-1])
    with pytest.raises(Bury, match=f"user {USER}.*cannot be decrypted"):
        room.share(user, item)


# What goes wrong on the way


@pytest.mark.parametrize("operation", [GET, MEDIA])
@pytest.mark.parametrize(
    ("status", "reason", "kind", "delay"),
    [
        (403, "rateLimitExceeded", Retry, None),
        (403, "userRateLimitExceeded", Retry, None),
        (403, "dailyLimitExceeded", Retry, 3600),
        (403, "dailyLimitExceededUnreg", Retry, 3600),
        (403, "quotaExceeded", Retry, 3600),
        (403, "insufficientPermissions", Bury, None),
        (403, "accessNotConfigured", Retry, None),
        (429, "rateLimitExceeded", Retry, None),
        (500, "backendError", Retry, None),
        (503, "backendError", Retry, None),
        (400, "invalid", Bury, None),
    ],
)
def test_an_error_of_the_api_comes_to_what_its_reason_says(
    room: Room, user: str, operation: str, status: int, reason: str, kind: type[Verdict], delay: float | None
) -> None:
    item = room.simulated.share(user)
    room.simulated.fail_next(operation, status, reason)
    with pytest.raises(kind, match=f"{item.id} of user {USER}.*{status}.*{reason}") as caught:
        room.share(user, item)
    assert getattr(caught.value, "delay", None) == delay
    assert room.stored() == {}
    assert room.asked(operation) == 1


@pytest.mark.parametrize("operation", [GET, MEDIA, "token"])
@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_honoured(room: Room, user: str, operation: str, status: int) -> None:
    room.simulated.fail_next(operation, status, "rateLimitExceeded", headers={"Retry-After": "77"})
    with pytest.raises(Retry) as caught:
        room.share(user, room.simulated.share(user))
    assert caught.value.delay == 77
    assert room.asked(operation) == 1


@pytest.mark.parametrize("operation", [GET, MEDIA])
@pytest.mark.parametrize("status", [200, 403, 502, 503])
def test_a_page_of_html_is_tried_again(room: Room, user: str, operation: str, status: int) -> None:
    room.simulated.fail_next(operation, status, body=HTML)
    with pytest.raises(Retry):
        room.share(user, room.simulated.share(user))
    assert room.stored() == {}


@pytest.mark.parametrize("status", [200, 400, 503])
def test_html_from_the_token_endpoint_is_nobodys_fault(room: Room, user: str, status: int) -> None:
    item = room.simulated.share(user)
    room.simulated.fail_next("token", status, body=HTML)
    with pytest.raises(Retry, match=f"access token of user {USER}"):
        room.share(user, item)
    room.share(user, item)
    assert only(room) == item.attachments[0].data


@pytest.mark.parametrize("error", ["invalid_client", "unauthorized_client", "invalid_scope"])
def test_a_wrong_set_up_is_buried_as_ours_and_the_user_stays_active(room: Room, user: str, error: str) -> None:
    item = room.simulated.share(user)
    room.simulated.fail_next("token", 400, error)
    with pytest.raises(Bury, match=f"OAuth client.*{error}"):
        room.share(user, item)
    room.share(user, item)
    assert only(room) == item.attachments[0].data


@pytest.mark.parametrize("operation", [GET, MEDIA, "token"])
@pytest.mark.parametrize("mode", ["hang up", "cut off"])
def test_a_broken_connection_is_tried_again_and_leaves_nothing_behind(
    room: Room, user: str, operation: str, mode: str
) -> None:
    item = room.simulated.share(user)
    room.simulated.fail_next(operation, mode=mode)  # type: ignore[arg-type]
    with pytest.raises(Retry):
        room.share(user, item)
    assert room.stored() == {}
    room.share(user, item)
    assert only(room) == item.attachments[0].data


def test_no_server_at_all_is_tried_again(room: Room, user: str) -> None:
    item = room.simulated.share(user)
    room.simulated.stop()
    with pytest.raises(Retry, match="Connection refused"):
        room.share(user, item)


@pytest.mark.parametrize("operation", [GET, MEDIA, "token"])
def test_a_redirect_is_refused(room: Room, user: str, operation: str) -> None:
    elsewhere = room.simulated.origin.replace("127.0.0.1", "localhost") + "/elsewhere"
    status = 307 if operation == "token" else 302
    room.simulated.fail_next(operation, status, headers={"Location": elsewhere})
    with pytest.raises(Retry):
        room.share(user, room.simulated.share(user))
    assert not any("elsewhere" in request.path for request in room.simulated.requests)
    assert room.stored() == {}


def test_an_attachment_larger_than_allowed_is_buried(room: Room, user: str) -> None:
    item = room.simulated.share(user)
    room.new_process(max_attachment=len(item.attachments[0].data) - 1)
    with pytest.raises(Bury, match="max_attachment"):
        room.share(user, item)
    assert room.stored() == {}
    room.new_process(max_attachment=len(item.attachments[0].data))
    room.share(user, item)
    assert only(room) == item.attachments[0].data


def test_an_attachment_gone_since_its_item_was_read_is_tried_again(room: Room, user: str) -> None:
    item = room.simulated.share(user)
    room.simulated.fail_next(MEDIA, 404, "notFound")
    with pytest.raises(Retry, match="404"):
        room.share(user, item)
    room.simulated.delete_item(user, item.id)
    with pytest.raises(Drop, match="gone"):
        room.share(user, item)


def test_an_access_token_that_went_stale_is_renewed_once(room: Room, user: str) -> None:
    room.share(user, room.simulated.share(user))
    assert room.asked("token") == 1
    room.simulated.expire_tokens(user)
    room.share(user, room.simulated.share(user))
    assert room.asked("token") == 2


@pytest.mark.parametrize("operation", [GET, MEDIA])
def test_a_fresh_access_token_that_is_refused_is_tried_again_later(room: Room, user: str, operation: str) -> None:
    room.simulated.fail_next(operation, 401, "authError", times=2)
    with pytest.raises(Retry, match=r"401.*fresh access token"):
        room.share(user, room.simulated.share(user))
    assert room.asked(operation) == 2


def test_a_deadline_in_the_middle_of_a_download_leaves_nothing_behind(room: Room, user: str) -> None:
    item = room.simulated.share(user, [Media("image/jpeg", b"\xff\xd8\xff" + bytes(1 << 20))])

    def pieces() -> object:
        with room.account(user).media(item.id, item.attachments[0].id, 1 << 30) as content:
            yield next(content)
            raise Interrupted("the pool stops")

    with pytest.raises(Interrupted):
        room.glass.storage.write("x.jpg", pieces(), content_type="image/jpeg", metadata={}, timeout=30)  # type: ignore[arg-type]
    assert room.stored() == {}


def test_secrets_are_in_no_reason_and_no_traceback(room: Room, user: str) -> None:
    secrets = [room.store.get(user).refresh_token, room.simulated.client_secret, "not for the logs", "ya29"]
    item, said = room.simulated.share(user), " ".join(secrets)
    body = json.dumps({"error": {"message": said, "errors": [{"reason": said}]}, "error_description": said})
    for operation in (GET, MEDIA, "token"):
        for status in (200, 400, 401, 403, 404, 500):
            room.simulated.fail_next(operation, status, body=body, times=2)
            room.new_process()
            with pytest.raises(Verdict) as caught:
                room.share(user, item)
            room.simulated.clear_faults()
            assert room.stored() == {}
            evidence = "".join(traceback.format_exception(caught.value))
            assert not any(secret in evidence for secret in secrets)
