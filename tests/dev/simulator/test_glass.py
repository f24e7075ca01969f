import gc
import http.client
import threading
from urllib.parse import quote, urlsplit

import google.auth.exceptions
import googleapiclient.errors
import httplib2
import pytest
import requests
from google.auth.transport.requests import AuthorizedSession
from google.oauth2.credentials import Credentials
from googleapiclient.http import HttpRequest

from glassq.dev.simulator.glass import HTML, SimulatedGlass
from glassq.dev.simulator.media import Media
from tests.conftest import free_port, wait_for


def tiny(number=1):
    return Media("image/jpeg", b"\xff\xd8\xff" + bytes([number]) * 5000)


def token(glass, account):
    form = {"grant_type": "refresh_token"} | {key: value for key, value in account.items() if key != "type"}
    return requests.post(glass.token_url, data=form, timeout=60)


class Caller:
    """One user's requests to the API, by plain HTTP."""

    def __init__(self, glass, account):
        self.glass = glass
        self.headers = {"Authorization": f"Bearer {token(glass, account).json()['access_token']}"}

    def __call__(self, method, path, **more):
        url = self.glass.api_url + path
        return requests.request(method, url, headers=self.headers, timeout=60, allow_redirects=False, **more)

    def get(self, path, **query):
        return self("GET", path, params=query)

    def media(self, item, attachment):
        return self.get(f"timeline/{item.id}/attachments/{quote(attachment.id, safe='')}", alt="media")


@pytest.fixture
def ada(glass):
    return Caller(glass, glass.add_user("ada"))


def reason(answer):
    error = answer.json()["error"]
    assert error["code"] == answer.status_code
    return error["errors"][0]["reason"]


# The token endpoint


def test_a_refresh_token_buys_an_access_token(glass):
    answer = token(glass, glass.add_user("ada"))
    assert answer.status_code == 200
    form = answer.json()
    assert (form["token_type"], form["expires_in"]) == ("Bearer", 3600)
    assert "glass.timeline" in form["scope"]


@pytest.mark.parametrize(
    ("change", "status", "error"),
    [
        ({"refresh_token": "unknown"}, 400, "invalid_grant"),
        ({"client_id": "another"}, 401, "invalid_client"),
        ({"client_secret": "wrong"}, 401, "invalid_client"),
    ],
)
def test_a_wrong_token_request_is_refused_as_google_refuses_it(glass, change, status, error):
    answer = token(glass, glass.add_user("ada") | change)
    assert (answer.status_code, answer.json()["error"]) == (status, error)


def test_a_revoked_user_gets_invalid_grant_and_the_old_access_token_is_worth_nothing(glass):
    account = glass.add_user("ada")
    ada = Caller(glass, account)
    glass.revoke("ada")
    assert token(glass, account).json()["error"] == "invalid_grant"
    assert ada.get("timeline").status_code == 401
    assert token(glass, glass.add_user("ada")).status_code == 200, "a fresh consent helps"


def test_an_expired_access_token_is_refused_and_the_refresh_token_still_works():
    with SimulatedGlass(token_lifetime=0.0) as glass:
        account = glass.add_user("ada")
        answer = Caller(glass, account).get("timeline")
        assert (answer.status_code, reason(answer)) == (401, "authError")
        assert token(glass, account).status_code == 200


def test_tokens_can_be_made_stale_while_their_holders_believe_in_them(glass, ada):
    assert ada.get("timeline").status_code == 200
    glass.expire_tokens("ada")
    assert ada.get("timeline").status_code == 401


# The timeline


def test_a_shared_item_names_its_attachments_as_glass_does(glass, ada):
    item = glass.share("ada", ["jpeg", "mp4", "stream"])
    form = ada.get(f"timeline/{item.id}").json()
    assert form["id"] == item.id
    assert [one["contentType"] for one in form["attachments"]] == [
        "image/jpeg",
        "video/mp4",
        "video/vnd.google-glass.stream-url",
    ]
    assert [one["id"].partition(":")[0] for one in form["attachments"]] == ["ps", "bs", "bs"]
    first = form["attachments"][0]
    assert first["contentUrl"] == f"{glass.api_url}timeline/{item.id}/attachments/{first['id']}?alt=media"


def test_media_comes_with_its_bytes_type_and_length_whether_the_colon_is_quoted_or_not(glass, ada):
    item = glass.share("ada", ["jpeg", "png", "mp4"])
    for attachment in item.attachments:
        path = f"timeline/{item.id}/attachments/{attachment.id}"
        for answer in (ada.media(item, attachment), ada.get(path, alt="media")):
            assert answer.content == attachment.data
            assert answer.headers["Content-Type"] == attachment.content_type
            assert answer.headers["Content-Length"] == str(len(attachment.data))
        assert ada.get(path).json()["id"] == attachment.id


def test_an_attachment_list_has_every_attachment(glass, ada):
    item = glass.share("ada", [tiny(1), tiny(2)])
    form = ada.get(f"timeline/{item.id}/attachments").json()
    assert [one["id"] for one in form["items"]] == [one.id for one in item.attachments]


def test_a_photo_in_processing_says_so_and_has_no_content(glass, ada):
    item = glass.share("ada", [tiny()], processing_for=3600)
    (form,) = ada.get(f"timeline/{item.id}").json()["attachments"]
    assert form["isProcessingContent"] is True
    assert "contentUrl" not in form
    assert ada.media(item, item.attachments[0]).status_code == 404


def test_processing_comes_to_an_end(glass, ada):
    item = glass.share("ada", [tiny()], processing_for=0.05)

    def is_ready():
        (form,) = ada.get(f"timeline/{item.id}").json()["attachments"]
        return "contentUrl" in form

    wait_for(is_ready, "the end of processing")
    assert ada.media(item, item.attachments[0]).content == item.attachments[0].data


def test_a_deleted_item_has_nothing_but_its_id(glass, ada):
    item = glass.share("ada", [tiny()])
    assert glass.delete_item("ada", item.id)
    assert ada.get(f"timeline/{item.id}").json() == {"id": item.id, "isDeleted": True}
    assert ada.media(item, item.attachments[0]).status_code == 404
    assert ada.get("timeline").json()["items"] == []
    assert len(ada.get("timeline", includeDeleted="true").json()["items"]) == 1


def test_an_item_deleted_without_a_trace_is_not_found(glass, ada):
    item = glass.share("ada", [tiny()])
    assert glass.delete_item("ada", item.id, trace=False)
    answer = ada.get(f"timeline/{item.id}")
    assert (answer.status_code, reason(answer)) == (404, "notFound")
    assert not glass.delete_item("ada", item.id)


def test_a_user_deletes_through_the_api_once(glass, ada):
    item = glass.share("ada", [tiny()])
    assert [ada("DELETE", f"timeline/{item.id}").status_code for _ in range(2)] == [204, 404]


def test_each_user_sees_only_the_own_timeline(glass, ada):
    ben = Caller(glass, glass.add_user("ben"))
    item = glass.share("ben", [tiny()])
    assert ben.get(f"timeline/{item.id}").status_code == 200
    assert ada.get(f"timeline/{item.id}").status_code == 404
    assert ada.media(item, item.attachments[0]).status_code == 404
    assert ada.get("timeline").json()["items"] == []


def test_a_long_timeline_comes_in_pages_latest_first(glass, ada):
    made = [glass.share("ada", []).id for _ in range(5)]
    seen, query = [], {"maxResults": "2"}
    for _ in range(3):
        page = ada.get("timeline", **query).json()
        seen += [item["id"] for item in page["items"]]
        query["pageToken"] = page.get("nextPageToken", "")
    assert seen == made[::-1]
    assert query["pageToken"] == ""
    assert ada.get("timeline", maxResults="none").status_code == 400


def test_a_card_can_be_inserted(glass, ada):
    made = ada("POST", "timeline", json={"text": "hello", "sourceItemId": "s1", "id": "mine"}).json()
    assert made["text"] == "hello"
    assert made["id"] != "mine"
    assert [item["id"] for item in ada.get("timeline", sourceItemId="s1").json()["items"]] == [made["id"]]
    assert ada("POST", "timeline", data=b"not json").status_code == 400


def test_nobody_gets_in_without_a_token(glass):
    for headers in ({}, {"Authorization": "Bearer made-up"}, {"Authorization": "Basic YTpi"}):
        answer = requests.get(glass.api_url + "timeline", headers=headers, timeout=60)
        assert answer.status_code == 401
        assert "WWW-Authenticate" in answer.headers


@pytest.mark.parametrize(
    "path", ["nothing", "timeline/", "timeline/a/b", "timeline/a/attachments/b/c", "subscriptions/x"]
)
def test_a_path_that_is_not_served_is_not_found(ada, path):
    assert ada.get(path).status_code == 404


# Subscriptions


def test_a_subscription_is_made_listed_changed_and_removed(glass, ada):
    form = {
        "collection": "timeline",
        "callbackUrl": "https://glassware.example/hook",
        "userToken": "u",
        "verifyToken": "v",
        "operation": ["INSERT"],
    }
    made = ada("POST", "subscriptions", json=form).json()
    assert made == form | {"id": "timeline", "kind": "mirror#subscription"}
    assert ada.get("subscriptions").json()["items"] == [made]
    changed = ada("PUT", "subscriptions/timeline", json=form | {"verifyToken": "w"}).json()
    assert changed["verifyToken"] == glass.subscription("ada").verify_token == "w"
    assert [ada("DELETE", "subscriptions/timeline").status_code for _ in range(2)] == [204, 404]
    assert ada("PUT", "subscriptions/timeline", json=form).status_code == 404


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"callbackUrl": "http://glassware.example/hook"}, "invalid"),
        ({"callbackUrl": "https://"}, "invalid"),
        ({"callbackUrl": None}, "required"),
        ({"collection": None}, "required"),
        ({"collection": "photos"}, "invalid"),
        ({"operation": ["SHARE"]}, "invalid"),
        ({"verifyToken": 7}, "invalid"),
    ],
)
def test_a_wrong_subscription_is_refused(ada, change, why):
    form = {"collection": "timeline", "callbackUrl": "https://glassware.example/hook"} | change
    answer = ada("POST", "subscriptions", json=form)
    assert (answer.status_code, reason(answer)) == (400, why)


def test_a_callback_on_loopback_may_be_plain_http(ada):
    form = {"collection": "timeline", "callbackUrl": "http://127.0.0.1:8080/hooks/mirror"}
    assert ada("POST", "subscriptions", json=form).status_code == 200


# Faults


def test_a_fault_happens_as_often_as_asked_for_and_not_to_others(glass, ada):
    item, other = glass.share("ada", [tiny()]), glass.share("ada", [tiny()])
    glass.fail_next(f"/mirror/v1/timeline/{item.id}", 429, "rateLimitExceeded", headers={"Retry-After": "7"}, times=2)
    assert ada.get(f"timeline/{other.id}").status_code == 200
    answers = [ada.get(f"timeline/{item.id}") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [429, 429, 200]
    assert answers[0].headers["Retry-After"] == "7"
    assert (reason(answers[0]), answers[0].json()["error"]["errors"][0]["domain"]) == (
        "rateLimitExceeded",
        "usageLimits",
    )


@pytest.mark.parametrize(
    ("where", "failed"),
    [
        ("timeline", ["list", "item", "attachment", "media"]),
        ("timeline.get", ["item"]),
        ("timeline.attachments", ["attachment", "media"]),
        ("timeline.attachments.get", ["attachment"]),
        ("timeline.attachments.get_media", ["media"]),
        ("subscriptions", []),
        ("/", ["list", "item", "attachment", "media"]),
    ],
)
def test_where_a_fault_happens_is_an_operation_its_group_or_a_path(glass, ada, where, failed):
    item = glass.share("ada", [tiny()])
    glass.fail_next(where, 500, times=9)
    path = f"timeline/{item.id}/attachments/{item.attachments[0].id}"
    answers = {
        "list": ada.get("timeline"),
        "item": ada.get(f"timeline/{item.id}"),
        "attachment": ada.get(path),
        "media": ada.get(path, alt="media"),
    }
    assert [name for name, answer in answers.items() if answer.status_code == 500] == failed


def test_a_fault_can_be_one_users(glass, ada):
    ben = Caller(glass, glass.add_user("ben"))
    glass.fail_next("timeline.list", 403, "insufficientPermissions", user="ben")
    assert [who.get("timeline").status_code for who in (ada, ben, ben)] == [200, 403, 200]


def test_faults_can_be_forgotten(glass, ada):
    glass.fail_next("timeline", 500, times=3)
    assert ada.get("timeline").status_code == 500
    assert glass.waiting_faults == 2
    glass.clear_faults()
    assert ada.get("timeline").status_code == 200


@pytest.mark.parametrize("status", [200, 503])
def test_an_answer_can_be_html(glass, ada, status):
    glass.fail_next("timeline.get", status, body=HTML)
    answer = ada.get("timeline/any")
    assert (answer.status_code, answer.content) == (status, HTML)
    assert answer.headers["Content-Type"].startswith("text/html")


def test_a_download_can_be_cut_off(glass, ada):
    item = glass.share("ada", [tiny()])
    glass.fail_next("timeline.attachments.get_media", mode="cut off")
    with pytest.raises(requests.exceptions.RequestException, match="IncompleteRead"):
        ada.media(item, item.attachments[0])
    assert ada.media(item, item.attachments[0]).content == item.attachments[0].data


def test_a_download_can_be_slow_and_still_come_whole(glass, ada):
    item = glass.share("ada", [tiny()])
    glass.fail_next("timeline.attachments.get_media", mode="slow", seconds=0.1)
    assert ada.media(item, item.attachments[0]).content == item.attachments[0].data


def test_a_connection_can_end_without_an_answer(glass, ada):
    glass.fail_next("timeline.list", mode="hang up")
    with pytest.raises(requests.exceptions.ConnectionError):
        ada.get("timeline")
    assert glass.requests[-1].status == 0
    assert ada.get("timeline").status_code == 200


def test_an_answer_can_lead_elsewhere(glass, ada):
    glass.fail_next("timeline.attachments.get_media", 302, headers={"Location": "http://elsewhere.example/"})
    answer = ada.get("timeline/a/attachments/b", alt="media")
    assert (answer.status_code, answer.headers["Location"]) == (302, "http://elsewhere.example/")


def test_the_token_endpoint_fails_in_its_own_form(glass):
    account = glass.add_user("ada")
    glass.fail_next("token", 400, "invalid_scope", user="ada")
    assert token(glass, account).json()["error"] == "invalid_scope"
    assert token(glass, account).status_code == 200


def test_the_log_tells_who_asked_for_what_and_what_came(glass, ada):
    item = glass.share("ada", [tiny()])
    ada.media(item, item.attachments[0])
    path = f"/mirror/v1/timeline/{item.id}/attachments/{item.attachments[0].id}"
    assert glass.requests == [
        ("POST", "/token", "token", "ada", 200),
        ("GET", path, "timeline.attachments.get_media", "ada", 200),
    ]


# Pings


def test_a_ping_says_what_mirror_says(glass, ada, callback):
    glass.subscribe("ada", callback.url, "secret")
    item = glass.share("ada", [tiny()])
    result = glass.ping("ada", item)
    assert (result.statuses, result.acknowledged) == ((200,), True)
    assert callback.pings == [
        {
            "collection": "timeline",
            "itemId": item.id,
            "operation": "INSERT",
            "userToken": "ada",
            "verifyToken": "secret",
            "userActions": [{"type": "SHARE"}],
        }
    ]


def test_a_pings_parts_can_be_changed_added_and_left_out(glass, ada, callback):
    glass.subscribe("ada", callback.url)
    glass.ping("ada", "any", "CUSTOM", "UPDATE", verifyToken="wrong", userActions=None, extra=1, omit=["userToken"])
    assert callback.pings == [
        {
            "collection": "timeline",
            "itemId": "any",
            "operation": "UPDATE",
            "verifyToken": "wrong",
            "userActions": None,
            "extra": 1,
        }
    ]


def test_a_subscription_made_through_the_api_is_where_pings_go(glass, ada, callback):
    form = {"collection": "timeline", "callbackUrl": callback.url, "userToken": "a-42", "verifyToken": "v"}
    ada("POST", "subscriptions", json=form)
    assert glass.ping("ada", "any").acknowledged
    assert (callback.pings[0]["userToken"], callback.pings[0]["verifyToken"]) == ("a-42", "v")


def test_a_ping_is_sent_again_until_it_is_acknowledged(glass, ada, callback):
    glass.subscribe("ada", callback.url)
    callback.statuses = [503, 500]
    result = glass.ping("ada", "any")
    assert (result.statuses, result.acknowledged) == ((503, 500, 200), True)
    assert len({ping["itemId"] for ping in callback.pings}) == 1


def test_a_ping_is_not_sent_again_for_ever(glass, ada, callback):
    callback.statuses = [503] * 9
    result = glass.send(callback.url, {"itemId": "any"}, tries=2)
    assert (result.statuses, result.acknowledged) == ((503, 503), False)


def test_a_callback_that_is_not_there_or_never_answers_counts_as_no_answer(glass, callback):
    assert glass.send(f"http://127.0.0.1:{free_port()}", {}, tries=1).statuses == (0,)
    with SimulatedGlass() as slow:
        slow.fail_next("/", mode="hang up")
        assert glass.send(slow.token_url, b"{}", tries=1).statuses == (0,)


def test_nobody_is_pinged_without_a_subscription(glass, ada):
    with pytest.raises(LookupError):
        glass.ping("ada", "any")
    with pytest.raises(ValueError, match="cannot subscribe"):
        glass.subscribe("ada", "http://glassware.example/hook")


def test_the_end_of_the_simulation_ends_the_resending(callback):
    callback.statuses = [503] * 99
    results = []
    with SimulatedGlass() as glass:
        sender = threading.Thread(target=lambda: results.append(glass.send(callback.url, {}, tries=99)))
        sender.start()
        assert callback.first.wait(60)
    sender.join(60)
    assert not sender.is_alive()
    assert not results[0].acknowledged


# Start and stop


def test_a_stop_ends_connections_kept_open_and_slow_answers():
    with SimulatedGlass() as glass:
        ada = Caller(glass, glass.add_user("ada"))
        item = glass.share("ada", [tiny()])
        idle = http.client.HTTPConnection("127.0.0.1", urlsplit(glass.origin).port, timeout=60)
        idle.request("GET", "/mirror/v1/timeline", headers=ada.headers)
        idle.getresponse().read()
        glass.fail_next("timeline.attachments.get_media", mode="slow", seconds=3600)
        url = f"/mirror/v1/timeline/{item.id}/attachments/{item.attachments[0].id}?alt=media"
        slow = http.client.HTTPConnection("127.0.0.1", urlsplit(glass.origin).port, timeout=60)
        slow.request("GET", url, headers=ada.headers)
        answer = slow.getresponse()
    assert idle.sock.recv(1) == b""
    with pytest.raises(http.client.IncompleteRead):
        answer.read()
    for one in (answer, idle, slow):
        one.close()
    assert not [thread for thread in threading.enumerate() if "process_request_thread" in thread.name]
    gc.collect()  # a socket left open would be a warning here, and warnings are errors


def test_users_items_and_address_are_still_there_after_a_new_start():
    glass = SimulatedGlass(port=free_port())
    with glass:
        url, account = glass.api_url, glass.add_user("ada")
        item = glass.share("ada", [tiny()])
    with glass:
        assert glass.api_url == url
        assert Caller(glass, account).get(f"timeline/{item.id}").json()["id"] == item.id


def test_many_threads_download_at_once_and_each_gets_its_own_bytes(glass, ada):
    items = [glass.share("ada", [tiny(number)]) for number in range(1, 9)]
    wrong = []

    def work(item):
        (attachment,) = item.attachments
        wrong.extend(item for _ in range(5) if ada.media(item, attachment).content != attachment.data)

    threads = [threading.Thread(target=work, args=(item,)) for item in items]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong
    assert len([one for one in glass.requests if one.status == 200]) == 41


# Google's own libraries


def credentials(glass, account):
    return Credentials(
        None,
        refresh_token=account["refresh_token"],
        token_uri=glass.token_url,
        client_id=account["client_id"],
        client_secret=account["client_secret"],
    )


def test_googles_session_gets_a_token_and_streams_the_media(glass):
    session = AuthorizedSession(credentials(glass, glass.add_user("ada")))
    item = glass.share("ada", ["jpeg"])
    url = f"{glass.api_url}timeline/{item.id}/attachments/{quote(item.attachments[0].id, safe='')}?alt=media"
    with session, session.get(url, stream=True, timeout=60) as answer:
        assert b"".join(answer.iter_content(1000)) == item.attachments[0].data
        glass.expire_tokens("ada")
        assert session.get(url, timeout=60).status_code == 200, "a stale token is renewed after the 401"
    operations = [one.operation for one in glass.requests]
    assert operations.count("token") == 2


def test_googles_session_understands_a_revoked_consent(glass):
    account = glass.add_user("ada")
    glass.revoke("ada")
    with (
        AuthorizedSession(credentials(glass, account)) as session,
        pytest.raises(google.auth.exceptions.RefreshError) as caught,
    ):
        session.get(glass.api_url + "timeline", timeout=60)
    assert caught.value.args[1]["error"] == "invalid_grant"


def test_googles_client_finds_the_reason_of_an_error(glass):
    glass.fail_next("timeline.get", 403, "userRateLimitExceeded", headers={"Retry-After": "3"})
    http_object = httplib2.Http(timeout=60)
    request = HttpRequest(http_object, lambda _, content: content, glass.api_url + "timeline/any")
    with pytest.raises(googleapiclient.errors.HttpError) as caught:
        request.execute(num_retries=0)
    http_object.close()
    assert caught.value.status_code == 403
    assert caught.value.error_details[0]["reason"] == "userRateLimitExceeded"
    assert caught.value.resp["retry-after"] == "3"
