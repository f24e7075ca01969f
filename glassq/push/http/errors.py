"""What a request is refused with: Google's error JSON, by the codes of google.rpc."""

from __future__ import annotations

import json
from http import HTTPStatus

from glassq.errors import GlassqError
from glassq.push.task_errors import (
    Error,
    InvalidQueueError,
    InvalidTaskError,
    TaskAlreadyExistsError,
    TombstonedTaskError,
    UnknownQueueError,
)

# https://cloud.google.com/apis/design/errors#handling_errors
STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    404: "NOT_FOUND",
    405: "INVALID_ARGUMENT",
    409: "ALREADY_EXISTS",
    411: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
}


class ApiError(GlassqError):
    """A request is refused with this HTTP code. `status` is google.rpc's word for it."""

    def __init__(self, code: int, message: str, status: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.status = status or STATUS.get(code, "INVALID_ARGUMENT" if code < HTTPStatus.INTERNAL_SERVER_ERROR else "")

    def body(self) -> bytes:
        """The body of the answer."""
        error = {"code": self.code, "message": str(self), "status": self.status}
        return json.dumps({"error": error}).encode() + b"\n"


def invalid(message: str) -> ApiError:
    """The request can never be right."""
    return ApiError(400, message)


def of_task(error: Error) -> ApiError:
    """The answer for what `taskqueue` raises."""
    if isinstance(error, TaskAlreadyExistsError | TombstonedTaskError):
        return ApiError(409, str(error))
    if isinstance(error, UnknownQueueError):
        return ApiError(404, f"{error}; it lists the queues")
    if isinstance(error, InvalidTaskError | InvalidQueueError):
        return invalid(str(error))
    return ApiError(503, str(error))
