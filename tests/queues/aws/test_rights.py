"""The rights that the documents tell to give are those that the code needs, no more and no less."""

from __future__ import annotations

import ast
import json
import re
from functools import cache
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("botocore")

import botocore.session
from botocore import xform_name

from glassq.queues.base import ALL_STATES, NewJob
from glassq.queues.sqs.client import SqsClient
from glassq.queues.sqs.making import SqsQueues
from glassq.queues.sqs.place import SqsPlace
from glassq.queues.swf.client import SwfClient
from glassq.queues.swf.making import SwfDomain
from glassq.queues.swf.place import SwfPlace
from tests.conftest import ROOT
from tests.queues.conformance.engine import TIMEOUT
from tests.queues.conformance.engines import ENGINES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.queues.conformance.engine import Engine

SERVICES = ("sqs", "swf")
ROLES = ("intake", "pool", "operator", "init")
# What IAM asks for where a call does not have its own name, or asks for more.
ASKED = {"SendMessageBatch": {"SendMessage"}, "DeleteMessageBatch": {"DeleteMessage"}}
ASKED["CreateQueue"] = {"CreateQueue", "TagQueue"}


@cache
def policies(service: str) -> dict[str, frozenset[str]]:
    """The actions of each policy in the documents, in the order of ROLES."""
    found = re.findall(r"```json\n(\{.*?)```", (ROOT / "docs" / f"{service}.md").read_text(), re.DOTALL)
    return {role: actions(json.loads(text)) for role, text in zip(ROLES, found, strict=True)}


def actions(policy: dict[str, list[dict[str, list[str] | str]]]) -> frozenset[str]:
    """What a policy allows."""
    named = [statement["Action"] for statement in policy["Statement"]]
    whole = [name for each in named for name in ([each] if isinstance(each, str) else each)]
    assert len({name.partition(":")[0] for name in whole}) == 1
    return frozenset(name.partition(":")[2] for name in whole)


@cache
def needed(service: str) -> frozenset[str]:
    """The actions of all calls that the code of an engine names."""
    model = botocore.session.get_session().get_service_model(service)
    known = {xform_name(name): name for name in model.operation_names}
    texts = {
        node.value
        for file in (ROOT / "glassq" / "queues" / service).glob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    calls = {known[text] for text in texts & known.keys()}
    # a decision may hold what IAM asks for as for a call
    kinds = model.shape_for("DecisionType").enum if "DecisionType" in model.shape_names else ()
    decisions = texts & set(kinds)
    return frozenset().union(*(ASKED.get(call, {call}) for call in calls)) | decisions


@pytest.mark.parametrize("service", SERVICES)
def test_the_policies_name_what_the_code_calls(service: str) -> None:
    assert frozenset().union(*policies(service).values()) == needed(service)


@pytest.mark.parametrize("service", SERVICES)
def test_what_init_prints_is_what_programs_and_operators_need(service: str) -> None:
    sqs = SqsQueues(SqsClient(SqsPlace("eu-west-1", "shop"), connect_timeout=1, timeout=1), ["glassq"])
    swf = SwfDomain(SwfClient(SwfPlace("eu-west-1", "shop"), connect_timeout=1, timeout=1))
    printed = actions(json.loads("\n".join((sqs if service == "sqs" else swf).rights("role"))))
    told = policies(service)
    assert printed == told["intake"] | told["pool"] | told["operator"]


def take_in(engine: Engine) -> None:
    """What the intake does."""
    producer = engine.producer()
    receipts = producer.put([NewJob(f"{number:032x}", b"1", "glassq") for number in range(12)], within=TIMEOUT)
    producer.put([NewJob("f" * 32, b"1", "glassq", 30.0)], within=TIMEOUT)
    producer.check(within=TIMEOUT)
    producer.withdraw(receipts[0], within=TIMEOUT)  # type: ignore[arg-type]
    producer.close()


def work(engine: Engine) -> None:
    """What a child of the pool does, and who gives its metrics."""
    receiver, failed = engine.receiver(), list[Exception]()

    def take() -> object:
        held = receiver.reserve(["glassq"], 10)
        assert held is not None
        return held

    receiver.extend(held := take())  # type: ignore[arg-type]
    receiver.complete(held, then=["glassq"], failed=failed.append)  # type: ignore[arg-type]
    receiver.retry(take(), b"2", delay=5, tube="glassq")  # type: ignore[arg-type]
    receiver.move(take(), b"3", tube="glassq.parked", put=lambda _: None, failed=failed.append)  # type: ignore[arg-type]
    receiver.bury(take(), b"4")  # type: ignore[arg-type]
    receiver.release(take())  # type: ignore[arg-type]
    receiver.filled(("glassq.",))
    receiver.is_paused("glassq")
    receiver.close()
    with_all = engine.inspector()
    with_all.status()
    with_all.counts()
    with_all.close()
    assert not failed


def decide(engine: Engine) -> None:
    """What commands do."""
    inspector = engine.inspector()
    inspector.status()
    inspector.counts()
    inspector.check(aside=True)
    list(inspector.facts(["glassq"], thorough=True))
    states = ALL_STATES & inspector.capabilities.lists
    inspector.insert(b"5", tube="glassq", state="buried")
    [job, *_] = inspector.find(frozenset({"buried"}), ["glassq"])
    inspector.change(job, state="ready")
    inspector.delete(inspector.get(inspector.insert(b"6", tube="glassq", state="buried")))
    list(inspector.find(states, ["glassq"]))
    inspector.history("0" * 32)
    inspector.pause("glassq", 60)
    inspector.pause("glassq", 0)
    inspector.close()


@pytest.mark.parametrize("service", SERVICES)
def test_each_program_calls_no_more_than_its_policy_allows(service: str, tmp_path: Path) -> None:
    kind = ENGINES[service]
    if missing := kind.missing():
        pytest.skip(missing)
    engine = kind(tmp_path)
    steps: dict[str, Callable[[Engine], None]] = {"intake": take_in, "pool": work, "operator": decide}
    # a decider of the pool's is beside each of them
    beside = {call for call in needed(service) if "Decision" in call}
    try:
        engine.make(["glassq", "glassq.parked"])
        for role, step in steps.items():
            engine.calls(clear=True)
            step(engine)
            called = {name for name, count in engine.calls().items() if count and name[0].isupper()}
            asked = frozenset().union(*(ASKED.get(call, {call}) for call in called)) - beside
            assert asked <= policies(service)[role], role
    finally:
        engine.end()
