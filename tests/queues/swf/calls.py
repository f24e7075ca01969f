"""Calls that SWF refuses, and the fault that each is answered with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.queues.swf import caller
from tests.queues.swf.caller import TYPE, Caller, refused

if TYPE_CHECKING:
    from collections.abc import Callable

CALLS: dict[str, tuple[Callable[[Caller], object], str]] = {
    "no domain": (lambda swf: swf.start(domain="other"), "UnknownResourceFault"),
    "no type": (lambda swf: swf.start(workflowType={"name": "x", "version": "1"}), "UnknownResourceFault"),
    "open already": (lambda swf: swf.start("open"), "WorkflowExecutionAlreadyStartedFault"),
    "the domain again": (lambda swf: Caller(swf.client, swf.domain), "DomainAlreadyExistsFault"),
    "the type again": (
        lambda swf: swf.client.register_workflow_type(domain=swf.domain, **TYPE), "TypeAlreadyExistsFault",
    ),
    "no default": (lambda swf: swf.start(workflowType={"name": "bare", "version": "1"}), "DefaultUndefinedFault"),
    "an old type": (lambda swf: swf.start(workflowType={"name": "old", "version": "1"}), "TypeDeprecatedFault"),
    "an old type again": (
        lambda swf: swf.client.deprecate_workflow_type(
            domain=swf.domain, workflowType={"name": "old", "version": "1"}
        ), "TypeDeprecatedFault",
    ),
    "a large input": (lambda swf: swf.start("large", input="x" * 32_769), "ValidationException"),
    "six tags": (lambda swf: swf.start("tags", tagList=["x"] * 6), "ValidationException"),
    "a long tag": (lambda swf: swf.start("tag", tagList=["x" * 257]), "ValidationException"),
    "a bad id": (lambda swf: swf.start("a/b"), "ValidationException"),
    "more than a year": (lambda swf: swf.start("year", executionStartToCloseTimeout="31536001"), "ValidationException"),
    "no such run": (lambda swf: swf.history("0" * 32), "UnknownResourceFault"),
    "a signal to nobody": (lambda swf: swf.signal("kick", "nobody", input="x"), "UnknownResourceFault"),
    "no token": (lambda swf: swf.complete({"taskToken": "nonsense"}), "ValidationException"),
    "a long reason": (lambda swf: swf.fail({"taskToken": "x"}, "x" * 257), "ValidationException"),
    "close is not last": (
        lambda swf: swf.decide(caller.complete(), caller.marker("x"), task=swf.held),
        "ValidationException",
    ),
    "no attributes": (lambda swf: swf.decide({"decisionType": "StartTimer"}, task=swf.held), "ValidationException"),
    "no such decision": (lambda swf: swf.decide({"decisionType": "Hope"}, task=swf.held), "ValidationException"),
}  # fmt: skip


def answers(swf: Caller) -> dict[str, str]:
    """What a service answers to each of them."""
    for name in ("bare", "old"):
        swf.client.register_workflow_type(domain=swf.domain, name=name, version="1")
    swf.client.deprecate_workflow_type(domain=swf.domain, workflowType={"name": "old", "version": "1"})
    swf.start("open", input="x" * 32_768, tagList=["x" * 256] * 5)
    # those that decide leave it as it is
    swf.held = swf.poll_decision()
    return {name: refused(call, swf) for name, (call, _) in CALLS.items()}
