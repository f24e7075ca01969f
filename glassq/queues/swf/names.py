"""What things of ours are called at SWF: executions, task lists, tags, types.

Names there have at most 256 characters, none of them a colon, a slash, a bar or a control character, and are not "arn".
A tag may be any text. https://docs.aws.amazon.com/amazonswf/latest/apireference/API_StartWorkflowExecution.html
"""

from __future__ import annotations

import hashlib
from urllib.parse import quote, unquote

MAX_NAME = 256
# The type of deliveries' executions and activities; its version says how histories are read (`versions`).
TYPE = "glassq"
# The type of executions that stand for a pause.
PAUSE_TYPE, PAUSE_VERSION = "glassq-pause", "1"
# Nobody decides what is only there: this list is never polled.
NOBODY = {"name": "glassq-nobody"}
BURIED = "buried"
_TUBE = "tube:"
_REF = "swf:"
_BESIDE = "~"
# Of a key, or of a tube's name, these are as they are; what is quoted has a % before two hex digits.
_PLAIN = " !#$&'()*+,;=?@[]"
_ARN = "arn"


def list_of(tube: str) -> dict[str, str]:
    """The task list of a tube, as calls name it."""
    return {"name": _name(tube)}


def decision_list(version: str) -> dict[str, str]:
    """The list of decisions about executions of this version: nobody decides what he cannot read."""
    return {"name": f"glassq-decisions-{version}"}


def workflow_id(key: str) -> str:
    """The id of a delivery's execution."""
    return _name(key)


def ref_of(execution: str) -> str:
    """The reference of a job that is this execution."""
    return f"{_REF}{unquote(execution)}"


def id_of(ref: str) -> str:
    """The execution's id; "" if this is no reference of a job."""
    return _name(ref.removeprefix(_REF)) if ref.startswith(_REF) and len(ref) > len(_REF) else ""


def key_in(execution: str) -> str:
    """The delivery's id in an execution's, whose name may say besides that another one has it as well."""
    return unquote(execution).partition(_BESIDE)[0]


def beside(key: str, text: str) -> str:
    """The id of an execution beside one that has this key already."""
    return _name(f"{key}{_BESIDE}{text}")


def tags_of(tube: str, *, buried: bool) -> list[str]:
    """The tags of a delivery's run."""
    return [_TUBE + tube, *([BURIED, buried_tag(tube)] if buried else [])]


def tube_tag(tube: str) -> str:
    """The tag of all deliveries in this tube."""
    return _TUBE + tube


def buried_tag(tube: str) -> str:
    """The tag of those that are buried in this tube."""
    return f"{BURIED}:{tube}"


def tube_in(tags: list[str]) -> str:
    """The tube of a run with these tags; "" if they name none."""
    return next((tag.removeprefix(_TUBE) for tag in tags if tag.startswith(_TUBE)), "")


def _name(text: str) -> str:
    """The text as a name; of one that would be too long, a hash."""
    name = quote(text, safe=_PLAIN)
    if name != name.strip() or name == _ARN:
        name = quote(text, safe="").replace(_ARN, "%61rn")
    return name if len(name) <= MAX_NAME else hashlib.sha256(text.encode()).hexdigest()
