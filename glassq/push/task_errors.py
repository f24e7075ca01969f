"""The exceptions of `taskqueue`: App Engine's names and conditions.

Error (a GlassqError)
+-- ConfigurationError             glassq.toml or queue.yaml cannot be used (also a SettingsError)
+-- UnknownQueueError               the queue is neither "default" nor in queue.yaml
+-- TransientError                  the queue or the names' database cannot take it now: try again later
+-- InternalError                   the queue gave an unexpected answer
+-- InvalidTaskError                parameters, headers, target or method cannot be used
|   +-- InvalidTaskNameError        the name has another form
|   +-- InvalidUrlError             the url is not relative, or too long
|   +-- InvalidEtaError             the eta is too far in the future
|   +-- TaskTooLargeError           the task with its headers is too large
|   |   +-- TransactionalRequestTooLargeError   never raised: there are no transactions
|   +-- TaskAlreadyExistsError      a task of this name is alive
|   +-- TombstonedTaskError         a task of this name ran, or was deleted, in the last 9 days
+-- InvalidQueueError               the queue cannot be used
|   +-- InvalidQueueNameError       the queue's name has another form
+-- InvalidQueueModeError           a feature of pull queues, which glassq does not have
+-- InvalidTaskRetryOptionsError    retry options that contradict themselves
+-- InvalidDispatchDeadlineError    dispatch_deadline_usec is out of range
+-- InvalidDeadlineError            the deadline of a call is not more than 0
+-- InvalidTagError                 never raised: tags belong to pull queues
+-- InvalidLeaseTimeError           never raised, like the next three: leases belong to pull queues
+-- InvalidMaxTasksError
+-- TaskLeaseExpiredError
+-- QueuePausedError
+-- BadTaskStateError               the task was added, or deleted, before
+-- BadTransactionStateError        a transactional add: glassq has no transactions
+-- DuplicateTaskNameError          one name twice in one call
+-- TooManyTasksError               more than MAX_TASKS_PER_ADD in one call
+-- PermissionDeniedError           never raised: there is no other application
+-- DatastoreError                  never raised: there is no datastore

Those that are never raised exist for the `except` clauses of App Engine programs.
"""

from __future__ import annotations

from glassq.errors import GlassqError, SettingsError


class Error(GlassqError):
    """Base of everything that `taskqueue` raises."""


class ConfigurationError(Error, SettingsError):
    """glassq.toml or queue.yaml cannot be used. App Engine has no such error."""


class UnknownQueueError(Error):
    """The queue is neither "default" nor in queue.yaml."""


class TransientError(Error):
    """The task could not be stored now, or it is unknown whether it was. Add it again later."""


class InternalError(Error):
    """The queue gave an unexpected answer."""


class InvalidTaskError(Error):
    """Parameters, headers, target or method of the task cannot be used."""


class InvalidTaskNameError(InvalidTaskError):
    """The task's name has the wrong form."""


class InvalidUrlError(InvalidTaskError):
    """The task's url is not relative, or too long."""


class InvalidEtaError(InvalidTaskError):
    """The task's eta is too far in the future."""


class TaskTooLargeError(InvalidTaskError):
    """The task with its headers and payload is too large."""


class TransactionalRequestTooLargeError(TaskTooLargeError):
    """Never raised."""


class TaskAlreadyExistsError(InvalidTaskError):
    """A task of this name is in the queue and has not succeeded yet."""


class TombstonedTaskError(InvalidTaskError):
    """A task of this name ran in this queue, or was deleted from it, in the last 9 days."""


class InvalidQueueError(Error):
    """The queue cannot be used."""


class InvalidQueueNameError(InvalidQueueError):
    """The queue's name has the wrong form."""


class InvalidQueueModeError(Error):
    """The call is for pull queues. glassq has push queues only."""


class InvalidTaskRetryOptionsError(Error):
    """Retry options that are out of range, or contradict each other."""


class InvalidDispatchDeadlineError(Error):
    """The task's dispatch_deadline_usec is out of range."""


class InvalidDeadlineError(Error):
    """The deadline given for a call is not more than 0."""


class InvalidTagError(Error):
    """Never raised."""


class InvalidLeaseTimeError(Error):
    """Never raised."""


class InvalidMaxTasksError(Error):
    """Never raised."""


class TaskLeaseExpiredError(Error):
    """Never raised."""


class QueuePausedError(Error):
    """Never raised."""


class BadTaskStateError(Error):
    """The task was added or deleted before, or it has no name to delete it by."""


class BadTransactionStateError(Error):
    """A transactional add: glassq has no transactions."""


# App Engine's older name
BadTransactionState = BadTransactionStateError


class DuplicateTaskNameError(Error):
    """One name stands twice in one call."""


class TooManyTasksError(Error):
    """More tasks than one call may add."""


class PermissionDeniedError(Error):
    """Never raised."""


class DatastoreError(Error):
    """Never raised."""
