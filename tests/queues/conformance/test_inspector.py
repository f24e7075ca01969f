"""What an Inspector promises."""

from __future__ import annotations

import time
from itertools import product
from typing import TYPE_CHECKING, get_args

import pytest
from msgspec.structs import replace

from glassq import delivery as envelope
from glassq.errors import JobNotFound, JobTooBig, NotDurable, QueueError, QueueRefused, QueueUnavailable
from glassq.queues.base import (
    ALL_STATES,
    Capabilities,
    Change,
    Fact,
    Job,
    NewForm,
    NewJob,
    State,
    TubeCounts,
    WaitingState,
)
from tests.conftest import wait_for
from tests.proxy import FREEZE
from tests.queues.conformance.engine import TIMEOUT
from tests.queues.conformance.roles import new_key

if TYPE_CHECKING:
    from collections.abc import Callable

    from glassq.queues import Inspector
    from tests.proxy import Proxy
    from tests.queues.conformance.engine import Engine
    from tests.queues.conformance.roles import Roles

WAITING: tuple[WaitingState, ...] = get_args(WaitingState)
EVERY_CHANGE = [*product(WAITING, WAITING)]


def one_in_each_state(roles: Roles, tube: str = "") -> dict[str, Job]:
    """A job in each state; the one that is reserved stays so until the test ends."""
    receiver = roles.receiver()
    roles.put(b"reserved", tube=tube)
    held = roles.take(receiver, b"reserved", tube=tube)
    found = {state: roles.lie(state, state.encode(), tube=tube) for state in WAITING}
    return {**found, "reserved": roles.job(held.ref)}


# -- looking --------------------------------------------------------------------------------------------------------


def test_an_engine_says_what_it_can_do(roles: Roles, engine: Engine) -> None:
    assert roles.inspector.engine == engine.kind
    assert isinstance(roles.able, Capabilities)
    assert roles.able.lists <= ALL_STATES
    assert roles.able.max_lease >= engine.shortest_lease
    assert roles.able.max_delay > 0


def test_a_tube_is_counted_by_states(roles: Roles) -> None:
    one_in_each_state(roles)
    roles.put(b"one more")
    if roles.able.exact_counts:
        assert without_totals(roles.counts()) == TubeCounts(roles.tube, ready=2, reserved=1, delayed=1, buried=1)
    assert roles.counts().jobs == 5
    # the engine counts what comes and goes, or not at all
    assert (roles.counts().total, roles.counts().deleted) in ((5, 0), (None, None))
    assert without_totals(roles.counts(roles.other)) == TubeCounts(roles.other)


def without_totals(counts: TubeCounts) -> TubeCounts:
    return replace(counts, total=None, deleted=None)


def test_the_counts_come_in_the_order_of_the_names(roles: Roles) -> None:
    for number, tube in enumerate(roles.tubes, 1):
        for _ in range(number):
            roles.put(tube=tube)
    order = [roles.third, "nobody.home", roles.tube]
    assert [(each.name, each.ready) for each in roles.inspector.counts(order)] == [*zip(order, (3, 0, 1), strict=True)]
    found = {each.name: each.ready for each in roles.inspector.counts()}
    assert {tube: found.get(tube) for tube in roles.tubes} == dict(zip(roles.tubes, (1, 2, 3), strict=True))
    assert "nobody.home" not in found


def test_the_first_job_in_each_state_is_seen_and_stays_as_it_is(roles: Roles) -> None:
    if not roles.able.oldest:
        return
    for tube in (roles.tube, roles.other):
        roles.lie("ready", b"ready first", tube=tube)
        roles.lie("ready", b"ready next", tube=tube)
        roles.lie("delayed", b"later", tube=tube, delay=3600)
        roles.lie("delayed", b"sooner", tube=tube, delay=1800)
        roles.lie("buried", b"buried first", tube=tube)
        roles.lie("buried", b"buried next", tube=tube)
    before = roles.there()
    first = {state: roles.inspector.first(state, roles.tube) for state in WAITING}
    assert {state: job and (job.state, job.tube, job.body) for state, job in first.items()} == {
        "ready": ("ready", roles.tube, b"ready first"),
        "delayed": ("delayed", roles.tube, b"sooner"),
        "buried": ("buried", roles.tube, b"buried first"),
    }
    assert roles.there() == before
    assert [roles.inspector.first(state, roles.third) for state in WAITING] == [None, None, None]


def test_a_job_tells_its_times_and_its_story(roles: Roles, engine: Engine) -> None:
    state: WaitingState = "buried" if unseen(roles, "ready") else "ready"
    ref = roles.lie(state).ref
    job = roles.inspector.get(ref)
    assert (job.ref, job.tube, job.state, job.body) == (ref, roles.tube, state, b"ping")
    assert (job.losses, job.kicked, job.durable) == (0, False, True)
    assert 0 <= job.age < 60
    assert job.ready_for is None or 0 <= job.ready_for <= job.age + 1
    assert roles.inspector.peek(ref) == b"ping"
    [there, gone] = roles.inspector.peek_all([ref, "nothing"])
    assert (there, type(gone)) == (b"ping", JobNotFound)
    delayed = roles.lie("delayed", delay=100)
    assert 98 <= delayed.time_left <= 100
    assert delayed.ready_for is None
    wait_for(lambda: roles.inspector.get(ref).age >= 1, "the job to grow older")


@pytest.mark.parametrize("text", ["", "ping", "-1", " 1", "01890a5d-ac96-774b-bcce-b302099a8057", "1\r\n", "①", "1 2"])
def test_what_is_no_reference_is_no_job(roles: Roles, text: str) -> None:
    assert not roles.inspector.is_ref(text)
    for look in (roles.inspector.get, roles.inspector.peek):
        with pytest.raises(JobNotFound):
            look(text)
    with pytest.raises(JobNotFound):
        roles.inspector.delete(replace(roles.lie("buried"), ref=text))


def test_a_job_that_is_gone_is_not_found(roles: Roles) -> None:
    job = roles.lie("buried")
    assert roles.inspector.is_ref(job.ref)
    roles.inspector.delete(job)
    for look in (roles.inspector.get, roles.inspector.peek):
        with pytest.raises(JobNotFound):
            look(job.ref)
    with pytest.raises(JobNotFound):
        roles.inspector.delete(job)


# -- finding --------------------------------------------------------------------------------------------------------


def test_jobs_are_found_by_state_and_tube_newest_first(roles: Roles) -> None:
    jobs = one_in_each_state(roles)
    elsewhere = one_in_each_state(roles, roles.other)
    for states in ({"ready"}, {"reserved"}, {"buried"}, {"delayed"}, {"ready", "buried"}, ALL_STATES):
        if not states <= roles.able.lists:
            continue
        wanted = [job for job in (*jobs.values(), *elsewhere.values()) if job.state in states]
        for tubes in ([roles.tube], [roles.other], [roles.tube, roles.other], [roles.third]):
            found = list(roles.inspector.find(frozenset(states), tubes))  # type: ignore[arg-type]
            assert {job.ref for job in found} == {job.ref for job in wanted if job.tube in tubes}
            assert [(job.state, job.body) for job in found] == [(job.state, job.state.encode()) for job in found]
    if unseen(roles, "ready"):
        with pytest.raises(QueueError, match="cannot show"):
            roles.inspector.first("ready", roles.tube)
        return
    bodies = [b"%d" % number for number in range(12)]
    for body in bodies:
        roles.put(body, tube=roles.third)
    assert [job.body for job in roles.inspector.find(frozenset({"ready"}), [roles.third])] == bodies[::-1]


def test_finding_changes_no_job(roles: Roles) -> None:
    before = [replace(job, age=0, time_left=0, ready_for=None) for job in one_in_each_state(roles).values()]
    roles.find()
    after = [roles.job(job.ref) for job in before]
    assert [replace(job, age=0, time_left=0, ready_for=None) for job in after] == before


def test_hints_that_are_right_spare_the_search_and_wrong_ones_do_no_harm(roles: Roles) -> None:
    told: list[tuple[int, int]] = []

    def found(*hints: str) -> list[bytes]:
        told.clear()
        searched = roles.inspector.find(
            frozenset({"buried"}), [roles.tube], hints=hints, progress=lambda done, whole: told.append((done, whole))
        )
        return [job.body for job in searched]

    jobs = [roles.lie("buried", b"%d" % number) for number in range(4)]
    ready, elsewhere = roles.lie("ready"), roles.lie("buried", tube=roles.other)
    refs = [job.ref for job in jobs]
    assert found(refs[2], refs[0], refs[3], refs[1]) == [b"3", b"2", b"1", b"0"]
    assert told == []
    wrong = ["no reference", ready.ref, elsewhere.ref, refs[1], refs[1], "999999999"]
    assert sorted(found(*wrong)) == [b"0", b"1", b"2", b"3"]
    assert sorted(found(refs[1], "999999999")) == [b"0", b"1", b"2", b"3"]


def test_whatever_is_wanted_is_found_by_its_id(roles: Roles) -> None:
    deliveries = [envelope.new("mirror", b"%d" % number, {}) for number in range(4)]
    refs = [
        roles.inspector.insert(envelope.encode(each), tube=roles.tube, state="buried", delay=0.0) for each in deliveries
    ]
    unread = roles.lie("buried", b"no delivery")
    wanted = {deliveries[1].id, deliveries[3].id}
    searched = roles.inspector.find(frozenset({"buried"}), [roles.tube], wanted=wanted.__contains__)
    found = {job.ref for job in searched}
    # what nobody can read may be wanted
    assert {refs[1], refs[3], unread.ref} <= found
    assert (found == {refs[1], refs[3], unread.ref}) is roles.able.by_key
    assert [roles.inspector.ref_of(each.id) for each in deliveries] == (refs if roles.able.by_key else [""] * 4)


def test_tubes_that_hold_jobs_are_named(roles: Roles) -> None:
    roles.lie("buried")
    roles.lie("delayed", tube=roles.other)
    named = roles.inspector.tubes()
    assert {roles.tube, roles.other} <= set(named)
    assert len(named) == len(set(named))


def test_only_what_was_put_after_a_mark_is_found(roles: Roles) -> None:
    state: WaitingState = "buried" if unseen(roles, "ready") else "ready"
    old = [roles.lie(state, b"old %d" % number) for number in range(3)]
    mark = roles.inspector.newest()
    assert list(roles.inspector.find(ALL_STATES, [roles.tube], since=mark)) == []
    for number in range(3):
        roles.lie(state, b"new %d" % number)
    wanted = [b"new 2", b"new 1", b"new 0"]
    assert [job.body for job in roles.inspector.find(ALL_STATES, [roles.tube], since=mark)] == wanted
    # neither an old job among the hints nor enough of them ends the search
    for hints in ([old[0].ref], [job.ref for job in old] * 2, [*(job.ref for job in old), "999999999", "999999998"]):
        found = roles.inspector.find(ALL_STATES, [roles.tube], since=mark, hints=hints)
        assert [job.body for job in found] == wanted
    assert list(roles.inspector.find(ALL_STATES, [roles.tube], since=roles.inspector.newest())) == []


def test_progress_is_told_while_a_search_goes(roles: Roles) -> None:
    told: list[tuple[int, int]] = []
    for number in range(3):
        roles.put(b"%d" % number)
    list(roles.inspector.find(ALL_STATES, [roles.tube], progress=lambda done, whole: told.append((done, whole))))
    assert all(0 <= done <= whole for done, whole in told)


def test_what_is_worked_while_it_is_looked_for_is_left_out(roles: Roles) -> None:
    state: WaitingState = "buried" if unseen(roles, "ready") else "ready"
    jobs = [roles.lie(state, b"%d" % number) for number in range(3)]
    going = roles.inspector.find(ALL_STATES, [roles.tube])
    assert next(going).body == b"2"
    roles.new_inspector().delete(jobs[0])
    assert [job.body for job in going] in ([b"1"], [b"1", b"0"])


# -- deciding -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", WAITING)
def test_a_job_can_be_put_in_any_waiting_state(roles: Roles, state: WaitingState) -> None:
    ref = roles.inspector.insert(b"ping", tube=roles.other, state=state, delay=1800)
    job = roles.job(ref)
    assert (job.state, job.tube, job.body, job.losses, job.kicked) == (state, roles.other, b"ping", 0, False)
    assert (1790 < job.time_left <= 1800) == (state == "delayed")
    assert roles.there() == [(state, b"ping")]
    too_big = b"x" * (roles.inspector.status().max_job + 1)
    with pytest.raises(JobTooBig):
        roles.inspector.insert(too_big, tube=roles.other, state=state)
    with pytest.raises(QueueError, match="tube"):
        roles.inspector.insert(b"ping", tube="no tube\r\n", state=state)
    assert roles.there() == [(state, b"ping")]


@pytest.mark.parametrize(("old", "new"), EVERY_CHANGE)
def test_a_job_gets_another_state_form_and_tube(roles: Roles, old: WaitingState, new: WaitingState) -> None:
    if unseen(roles, old):
        return
    for body, tube in product((None, b"ping", b"another form"), ("", roles.tube, roles.other)):
        job = roles.lie(old)
        ref = roles.inspector.change(job, state=new, body=body, tube=tube, delay=1800)
        [changed] = roles.find()
        assert (changed.ref, changed.state) == (ref, new)
        assert (changed.body, changed.tube) == (body or b"ping", tube or roles.tube)
        assert (1790 < changed.time_left <= 1800) == (new == "delayed")
        assert changed.losses == 0
        # nobody but an operator frees what is buried, and all may work what is ready
        receiver = roles.receiver()
        held = receiver.reserve(roles.tubes, 0)
        held = held and receiver.examine(held)
        assert (held and (held.body, held.losses)) == ((changed.body, 0) if new == "ready" else None)
        roles.remove(changed) if held is None else receiver.complete(held)


def test_many_jobs_are_put_seen_changed_and_deleted_together_each_with_its_own_error(roles: Roles) -> None:
    inspector = roles.inspector
    too_big = b"x" * (inspector.status().max_job + 1)
    states = [state for state in WAITING * 3 if not unseen(roles, state)][:6]
    forms = [NewForm(b"%d" % number, roles.tube, state, 1800) for number, state in enumerate(states)]
    forms.append(NewForm(too_big, roles.tube, "ready"))
    *refs, error = inspector.insert_all(forms)
    assert isinstance(error, JobTooBig)
    jobs = inspector.get_all([str(ref) for ref in refs])
    assert [(job.state, job.body) for job in jobs if isinstance(job, Job)] == [
        (form.state, form.body) for form in forms[:-1]
    ]
    assert isinstance(inspector.get_all(["no reference"])[0], JobNotFound)
    assert inspector.still([*map(str, refs), "no reference"], "buried") == [job.state == "buried" for job in jobs] + [
        False
    ]
    [gone, *there] = [job for job in jobs if isinstance(job, Job)]
    inspector.delete(gone)
    changes = [Change(job, "buried", job.body + b"!", roles.other) for job in (gone, *there)]
    error, *changed = inspector.change_all(changes)
    assert isinstance(error, JobNotFound)
    assert roles.there() == [("buried", job.body + b"!") for job in there]
    left = [job for job in inspector.get_all([str(ref) for ref in changed]) if isinstance(job, Job)]
    answers = inspector.delete_all([*left, gone])
    assert [type(answer) for answer in answers] == [*[type(None)] * 5, JobNotFound]
    assert roles.there() == []
    assert (inspector.insert_all([]), inspector.change_all([]), inspector.get_all([])) == ([], [], [])


def unseen(roles: Roles, *states: State) -> bool:
    """Whether the engine shows no job in one of these states: then no operator can decide about it."""
    return not roles.able.lists.issuperset(states)


def in_vain(roles: Roles, job: Job) -> None:
    """Nothing can be decided about it any more, and nothing is there that was not."""
    before = roles.there()
    for state, body, tube in product(WAITING, (None, b"another form"), ("", roles.other)):
        if (state, body, tube) == (job.state, None, "") == ("ready", None, ""):
            continue
        with pytest.raises(JobNotFound):
            roles.inspector.change(job, state=state, body=body, tube=tube, delay=60)
        assert roles.there() == before
    with pytest.raises(JobNotFound):
        roles.inspector.delete(job)
    assert roles.there() == before


@pytest.mark.parametrize("state", ["ready", "delayed"])
def test_a_job_that_somebody_took_meanwhile_is_not_changed(roles: Roles, state: WaitingState) -> None:
    if unseen(roles, "ready"):
        return
    job = roles.lie(state, delay=1)
    receiver = roles.receiver()
    held = roles.take(receiver, b"ping")
    in_vain(roles, job)
    in_vain(roles, roles.inspector.get(held.ref))
    receiver.complete(held)
    assert roles.find() == []


@pytest.mark.parametrize("state", WAITING)
def test_a_job_that_is_gone_meanwhile_is_not_changed(roles: Roles, state: WaitingState) -> None:
    if unseen(roles, state):
        return
    job = roles.lie(state)
    roles.new_inspector().delete(job)
    in_vain(roles, job)


@pytest.mark.parametrize("state", WAITING)
def test_a_job_whose_reference_is_another_deliverys_by_now_is_not_changed(roles: Roles, state: WaitingState) -> None:
    if unseen(roles, state):
        return
    in_vain(roles, replace(roles.lie(state), body=b"what was seen under this reference before"))


@pytest.mark.parametrize("state", WAITING)
def test_a_form_that_is_too_big_changes_nothing(roles: Roles, state: WaitingState) -> None:
    if unseen(roles, state):
        return
    job = roles.lie(state)
    too_big = b"x" * (roles.inspector.status().max_job + 1)
    for new in WAITING:
        with pytest.raises(JobTooBig):
            roles.inspector.change(job, state=new, body=too_big, delay=60)
    assert roles.there() == [(state, b"ping")]


def test_while_no_jobs_are_taken_what_needs_no_put_can_be_decided(roles: Roles, engine: Engine) -> None:
    jobs = [roles.lie(state, state.encode()) for state in WAITING]
    with engine.refusing():
        inspector = roles.new_inspector()
        for call in (
            lambda: inspector.insert(b"x", tube=roles.tube, state="ready"),
            lambda: inspector.change(jobs[2], state="ready", body=b"another form"),
            # beanstalkd's mark is a job that is put
            lambda: inspector.newest() if engine.name == "beanstalkd" else inspector.check(),
            lambda: inspector.check(),
        ):
            with pytest.raises(QueueRefused):
                call()
        assert not inspector.status().accepting
        assert [fact.ok for fact in inspector.facts(roles.tubes) if fact.ok is False]
        assert roles.there() == sorted((job.state, job.body) for job in jobs)
        if not roles.able.buries_in_place:
            with pytest.raises(QueueRefused):
                inspector.change(jobs[2], state="ready")
            inspector.delete(jobs[1])
            assert roles.there() == [("buried", b"buried"), ("ready", b"ready")]
            return
        inspector.change(jobs[2], state="ready")
        inspector.delete(jobs[1])
    roles.reconnect()
    assert roles.there() == [("ready", b"buried"), ("ready", b"ready")]


@pytest.mark.parametrize("state", WAITING)
def test_a_job_is_deleted_in_any_waiting_state(roles: Roles, state: WaitingState) -> None:
    if unseen(roles, state):
        return
    job, other = roles.lie(state), roles.lie(state, b"another one")
    roles.inspector.delete(job)
    assert [found.ref for found in roles.find()] == [other.ref]


def test_nothing_is_reserved_from_a_paused_tube_until_it_goes_on(roles: Roles) -> None:
    if not roles.able.pause:
        return
    roles.put(b"kept")
    roles.put(b"free", tube=roles.other)
    receiver = roles.receiver()
    assert roles.inspector.pause(roles.tube, 3600)
    assert 3500 < roles.counts().paused_for <= 3600
    assert roles.counts(roles.other).paused_for == 0
    free = receiver.reserve([roles.tube, roles.other], 0)
    assert (free and free.body) == b"free"
    assert receiver.reserve([roles.tube, roles.other], 0) is None
    assert roles.new_inspector().pause(roles.tube, 0)
    assert roles.counts().paused_for == 0
    roles.take(receiver, b"kept")


def test_a_tube_that_does_not_exist_cannot_be_paused(roles: Roles) -> None:
    if not roles.able.pause:
        return
    assert not roles.inspector.pause(f"{roles.tube}.nobody", 3600)
    for seconds in (-5, float("inf"), float("nan")):
        roles.put()
        with pytest.raises(QueueError, match="seconds"):
            roles.inspector.pause(roles.tube, seconds)
    assert roles.counts().paused_for == 0


# -- the engine as a whole ------------------------------------------------------------------------------------------


def test_the_status_is_that_of_a_healthy_engine(roles: Roles, engine: Engine) -> None:
    before = roles.inspector.status()
    assert (before.engine, before.durable, before.accepting) == (engine.kind, True, True)
    assert before.version
    assert before.max_job >= engine.largest
    assert before.uptime >= 0
    roles.receiver().reserve([roles.tube], 0)
    assert roles.inspector.status().consumers == before.consumers + roles.able.sees_consumers
    assert all(gauge.name.startswith("glassq_") and gauge.help for gauge in before.gauges)
    roles.inspector.check()
    assert [fact for fact in roles.inspector.facts(roles.tubes) if fact.ok is False] == []


def told(fact: Fact) -> Fact:
    """A fact that people can read: wrong ones say what to do."""
    assert fact.name
    assert fact.said
    assert fact.ok is not False or fact.todo
    return fact


def test_all_facts_of_a_healthy_engine_are_fine(roles: Roles) -> None:
    facts = [told(fact) for fact in roles.inspector.facts(roles.tubes, job_size=1000, thorough=True)]
    assert len(facts) >= 3
    assert [fact for fact in facts if fact.ok is False] == []
    too_much = roles.inspector.status().max_job + 1
    small = [told(fact) for fact in roles.inspector.facts(roles.tubes, job_size=too_much, thorough=True)]
    assert len([fact for fact in small if fact.ok is False]) == 1


def test_an_engine_that_would_forget_is_told(roles: Roles, engine: Engine) -> None:
    inspector = roles.new_inspector()
    assert inspector.status().durable
    if roles.able.never_forgets:
        return
    with engine.forgetting():
        for _ in range(3):
            roles.producer.put([NewJob(new_key(), b"perhaps forgotten", roles.tube)], within=TIMEOUT)
            durable = inspector.status().durable
        assert not durable
        wrong = [fact for fact in inspector.facts(roles.tubes, thorough=True) if fact.ok is False]
        assert [told(fact).name for fact in wrong] == ["durability"]
    inspector.close()
    assert inspector.status().durable


@pytest.mark.parametrize(
    "error",
    [QueueUnavailable("gone"), QueueRefused("full"), NotDurable("lazy"), JobTooBig("big"), QueueError("odd")],
    ids=lambda error: type(error).__name__,
)
def test_every_error_is_explained(roles: Roles, error: QueueError) -> None:
    fact = told(roles.inspector.explain(error))
    assert fact.ok is False
    assert str(error) in fact.said


def test_nobody_there_is_said_and_explained(roles: Roles, engine: Engine) -> None:
    calls: dict[str, Callable[[Inspector], object]] = {
        "status": lambda inspector: inspector.status(),
        "counts": lambda inspector: inspector.counts(),
        "find": lambda inspector: list(inspector.find(ALL_STATES, roles.tubes)),
        "facts": lambda inspector: list(inspector.facts(roles.tubes)),
        "all facts": lambda inspector: list(inspector.facts(roles.tubes, thorough=True)),
        "newest": lambda inspector: inspector.newest(),
        "check": lambda inspector: inspector.check(),
        "pause": lambda inspector: inspector.pause(roles.tube, 1),
    }
    if not roles.able.lists >= ALL_STATES:
        # what it finds lies beside the engine
        del calls["find"], calls["newest"]
    inspector = roles.new_inspector()
    inspector.status()
    engine.stop()
    try:
        for name, call in calls.items():
            with pytest.raises(QueueUnavailable) as caught:
                call(inspector)
            assert told(inspector.explain(caught.value)).ok is False, name
    finally:
        engine.start()
    assert inspector.status().accepting


def test_no_call_goes_on_past_the_deadline(roles: Roles, proxy: Proxy) -> None:
    inspector = roles.new_inspector(port=proxy.port)
    inspector.status()
    inspector.set_deadline(time.monotonic() + 0.2)
    proxy.set(FREEZE)
    for call in (inspector.status, inspector.counts, inspector.newest):
        with pytest.raises(QueueUnavailable):
            call()
