import threading
from collections import Counter

import pytest
import requests

from glassq.dev.simulator.crowd import TROUBLES, Crowd

RATE = 500.0


def subscribed(glass, callback, **plan):
    crowd = Crowd(glass, rate=RATE, **plan)
    callback.verify_token = "secret"
    for user in crowd.accounts:
        glass.subscribe(user, callback.url, "secret")
    return crowd


def opened(glass, crowd, planned):
    """The API's answer to the first look at a planned ping's item."""
    account = {key: value for key, value in crowd.accounts[planned.user].items() if key != "type"}
    token = requests.post(glass.token_url, data={"grant_type": "refresh_token"} | account, timeout=60)
    if token.status_code != 200:
        return token
    headers = {"Authorization": f"Bearer {token.json()['access_token']}"}
    return requests.get(f"{glass.api_url}timeline/{planned.item.id}", headers=headers, timeout=60)


def test_every_kind_of_trouble_is_planned_and_each_has_its_expected_outcome(glass):
    planned = Crowd(glass, pings=200, users=3).planned
    assert {one.trouble for one in planned} == {*TROUBLES, "none"}
    expected = {one.trouble: one.expected for one in planned}
    assert {trouble: outcome for trouble, outcome in expected.items() if outcome != "stored"} == {
        "gone": "dropped",
        "revoked": "buried",
        "wrong token": "refused",
    }
    assert {one.trouble for one in Crowd(glass, pings=len(TROUBLES)).planned} == set(TROUBLES)
    assert Counter(one.trouble for one in planned)["none"] > 100, "most are plain photos"


def test_the_same_seed_makes_the_same_plan(glass):
    plans = [[(one.user, one.trouble) for one in Crowd(glass, pings=50, seed=seed).planned] for seed in (7, 7, 8)]
    assert plans[0] == plans[1] != plans[2]


def test_everybody_in_the_plan_has_an_account_and_one_alone_revokes(glass):
    crowd = Crowd(glass, pings=100, users=2)
    assert len(crowd.users) == 2
    assert {one.user for one in crowd.planned} == set(crowd.accounts)
    assert {one.user for one in crowd.planned if one.trouble == "revoked"} == set(crowd.accounts) - set(crowd.users)


@pytest.mark.parametrize("wrong", [{"pings": -1}, {"pings": 1, "users": 0}, {"pings": 1, "rate": 0.0}])
def test_a_crowd_of_nobody_is_refused(glass, wrong):
    with pytest.raises(ValueError, match="a crowd needs"):
        Crowd(glass, **wrong)


def test_a_run_sends_every_ping_and_tells_what_was_acknowledged(glass, callback):
    crowd = subscribed(glass, callback, pings=40, users=3)
    told = []
    crowd.run(told.append)
    assert sorted(one.number for one in told) == [one.number for one in crowd.planned] == list(range(1, 41))
    refused = [one for one in crowd.planned if not one.acknowledged]
    assert {one.trouble for one in refused} == {"wrong token"} == {one.trouble for one in told if one in refused}
    assert all(one.results[0].statuses == (403,) for one in refused), "a spoofer does not insist"
    sent = Counter(ping["itemId"] for ping in callback.pings)
    assert {one.number for one in crowd.planned if sent[one.item.id] == 2} == {
        one.number for one in crowd.planned if one.trouble == "duplicate"
    }


def test_each_planned_ping_has_the_files_that_must_be_stored(glass, callback):
    crowd = subscribed(glass, callback, pings=12)
    assert all(one.files == () for one in crowd.planned)
    crowd.run()
    files = {one.trouble: [attachment.content_type for attachment in one.files] for one in crowd.planned}
    assert files["png"] == ["image/png"]
    assert files["several"] == ["image/jpeg", "video/mp4"], "a live stream's address is not a file"
    assert files["gone"] == files["revoked"] == files["wrong token"] == []
    every = [attachment.data for one in crowd.planned for attachment in one.files]
    assert len(set(every)) == len(every)


def test_the_troubles_are_real(glass, callback):
    crowd = subscribed(glass, callback, pings=12)
    crowd.run()
    answers = {one.trouble: opened(glass, crowd, one) for one in crowd.planned}
    gone = answers["gone"]
    assert gone.status_code == 404 or gone.json()["isDeleted"]
    assert answers["revoked"].json()["error"] == "invalid_grant"
    assert answers["rate limited"].status_code in (403, 429)
    assert answers["rate limited"].headers["Retry-After"] == "1"
    assert answers["server error"].status_code == 503
    assert answers["duplicate"].json()["attachments"]
    assert glass.waiting_faults >= 1, "the download to be cut off"


def test_a_run_can_be_interrupted(glass, callback):
    crowd = subscribed(glass, callback, pings=500)
    lock, told = threading.Lock(), []

    def after_a_few(planned):
        with lock:
            told.append(planned)
            if len(told) == 3:
                crowd.stop.set()

    crowd.run(after_a_few)
    assert 3 <= len(told) < 500
    assert {one.number for one in crowd.planned if one.results} == {one.number for one in told}


def test_a_user_without_a_subscription_is_an_error_of_the_run(glass):
    with pytest.raises(LookupError):
        Crowd(glass, pings=2, rate=RATE).run()
