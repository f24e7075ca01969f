"""What SWF is asked and answers, checked against the description of the service that botocore has."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any

from botocore.loaders import Loader
from botocore.model import ListShape, ServiceModel, StructureShape

from tests.queues.swf.faults import invalid

if TYPE_CHECKING:
    from collections.abc import Iterator

    from botocore.model import Shape

_KINDS: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "long": (int,),
    "boolean": (bool,),
    "timestamp": (int, float),
}
# What a name may not have: of a domain, an execution, a type, a list, an activity, a timer (API reference).
_BAD = re.compile("[:/|\\x00-\\x1f\\x7f-\\x9f]")
_NAMES = {"DomainName", "WorkflowId", "Name", "Version", "ActivityId", "TimerId"}


@cache
def model() -> ServiceModel:
    return ServiceModel(Loader().load_service_model("swf", "service-2"), "swf")


def check_question(action: str, asked: object) -> None:
    """Raises SwfFault if the call is not as the service's description wants it."""
    if action not in model().operation_names:
        raise invalid(f"There is no {action}")
    found = list(_problems(model().operation_model(action).input_shape, asked, ""))
    if found:
        errors = "error" if len(found) == 1 else "errors"
        raise invalid(f"{len(found)} validation {errors} detected: {'; '.join(found)}")


def check_answer(action: str, answer: object) -> None:
    """Raises AssertionError if this is no answer to such a call."""
    shape = model().operation_model(action).output_shape
    # a poll that found nothing has neither a token nor anything else that it must have
    if shape is None or (isinstance(answer, dict) and answer.get("startedEventId") == 0):
        return
    found = list(_problems(shape, answer, ""))
    assert not found, f"{action}: {found}"


def _problems(shape: Shape | None, value: Any, where: str) -> Iterator[str]:
    if isinstance(shape, StructureShape):
        yield from _of_structure(shape, value, where)
    elif isinstance(shape, ListShape):
        if _too_long(shape, value):
            yield _failed(value, where, f"have length less than or equal to {shape.metadata['max']}")
        for number, each in enumerate(value, 1):
            yield from _problems(shape.member, each, f"{where}.{number}.member")
    elif shape is not None:
        yield from _of_simple(shape, value, where)


def _of_structure(shape: StructureShape, value: Any, where: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield _failed(value, where, "be a structure")
        return
    before = f"{where}." if where else ""
    for name in shape.required_members:
        if value.get(name) is None:
            yield f"Value null at '{before}{name}' failed to satisfy constraint: Member must not be null"
    for name, member in value.items():
        if name not in shape.members:
            yield _failed(member, f"{before}{name}", "be known")
        elif member is not None:
            yield from _problems(shape.members[name], member, f"{before}{name}")


def _of_simple(shape: Shape, value: Any, where: str) -> Iterator[str]:
    limits = shape.metadata
    if not isinstance(value, _KINDS[shape.type_name]):
        yield _failed(value, where, f"be a {shape.type_name}")
    elif "enum" in limits and value not in limits["enum"]:
        yield _failed(value, where, f"satisfy enum value set: [{', '.join(limits['enum'])}]")
    elif _too_long(shape, value):
        yield _failed(value, where, f"have length less than or equal to {limits['max']}")
    elif isinstance(value, str) and len(value) < limits.get("min", 0):
        yield _failed(value, where, f"have length greater than or equal to {limits['min']}")
    elif shape.name in _NAMES and (_BAD.search(value) or value == "arn" or value != value.strip()):
        yield _failed(value, where, "be a name")


def _too_long(shape: Shape, value: Any) -> bool:
    most = shape.metadata.get("max")
    return most is not None and (value if isinstance(value, int) else len(value)) > most


def _failed(value: object, where: str, must: str) -> str:
    return f"Value '{str(value)[:200]}' at '{where}' failed to satisfy constraint: Member must {must}"
