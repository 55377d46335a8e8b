"""Every error Floodgate raises, drawn as one tree.

    FloodgateError
    ├── SettingsError            a setting is missing or wrong
    ├── JobError                 a job that is invalid, found without asking Telegram
    │   ├── UnknownMethodError
    │   ├── UnknownBotError
    │   ├── InvalidParamsError
    │   ├── DedupeKeyError       a dedupe key was used before, for something else
    │   └── MalformedJobError    bytes that cannot be read as a job
    │       └── MalformedUpdateError  … or as an update
    ├── RabbitMQError
    │   ├── RabbitMQUnreachableError
    │   ├── AccessRefusedError       wrong user, password or vhost
    │   ├── UnsupportedServerError
    │   ├── TopologyError            a queue or exchange is missing, or exists with other arguments
    │   │   └── DeclareRefusedError      … and this account may not create it
    │   └── PublishError             RabbitMQ did not confirm the job
    │       ├── NotConnectedError    the connection was lost and is not back yet
    │       ├── UnroutableError
    │       ├── RejectedError        RabbitMQ refused the job (nack)
    │       ├── BlockedError         a memory or disk alarm lasted longer than the time-out
    │       └── ConfirmTimeoutError  no answer: the job may or may not be queued
    ├── EnqueueManyError         enqueue_many stopped part-way: which jobs are safe, which are not
    ├── ClosedError              a client was used after it was closed
    ├── CallError                a Bot API call failed on the network; the cause of the library's network errors
    │   ├── NotSentError         the call certainly never reached the Bot API
    │   └── CutOffError          the call may have reached it and taken effect
    ├── StateError
    │   ├── StateUnavailableError    the state store is down, locked, read-only or full
    │   └── StateSchemaError         the state store was written by another version
    ├── SpoolError               uploads cannot be stored or read
    │   └── UploadMissingError       the spool is available but the upload is not in it
    ├── NotSettledError          the requested result is not available yet
    ├── HandlersStoppedError     the user's handlers of updates ended their worker
    └── DeadLetteredError        the job whose result was requested will not be sent

A message has one sentence that says what is wrong and one that says what to do. Data is in attributes of the exception.
"""

from __future__ import annotations

from typing import Any


class FloodgateError(Exception):
    """Root of all errors raised by Floodgate."""


class SettingsError(FloodgateError):
    """A setting is missing or wrong; the message names the variable and the fix."""


class JobError(FloodgateError):
    """The job is invalid, which was found without asking Telegram. Nothing was queued."""


class UnknownMethodError(JobError):
    """The Bot API has no method of this name."""


class UnknownBotError(JobError):
    """No bot of this name is configured."""


class InvalidParamsError(JobError):
    """The Bot API would reject the parameters, or they cannot be sent through a queue."""


class DedupeKeyError(JobError):
    """The dedupe key was used before, for another method, chat or content. Nothing was queued."""


class MalformedJobError(JobError):
    """Bytes in a queue that cannot be read as a job."""


class MalformedUpdateError(MalformedJobError):
    """Malformed update, from Telegram or from a queue: it lacks what ordering and deduplication need."""


class RabbitMQError(FloodgateError):
    """RabbitMQ refused, failed or could not be reached."""


class RabbitMQUnreachableError(RabbitMQError):
    """No configured RabbitMQ address accepted a connection in time."""


class AccessRefusedError(RabbitMQError):
    """RabbitMQ refused the login: wrong user or password, or the user has no such vhost."""


class UnsupportedServerError(RabbitMQError):
    """The server is older than RabbitMQ 4.0, or is not RabbitMQ."""

    def __init__(self, product: str, version: str) -> None:
        self.product = product
        self.version = version
        super().__init__(
            f"The server is {product} {version}, and Floodgate needs RabbitMQ 4.0 or newer. "
            "Upgrade it, or point FLOODGATE_RABBITMQ_URL at another server (scripts/rabbitmq start gives you one)."
        )


class TopologyError(RabbitMQError):
    """A queue or exchange is missing, or exists with arguments other than ours."""


class DeclareRefusedError(TopologyError):
    """This RabbitMQ account may not create queues. Run `floodgate topology apply` with the operator's account."""


class PublishError(RabbitMQError):
    """RabbitMQ did not accept the job. ``job_ids`` are the jobs not known to be safe."""

    def __init__(self, message: str, *, job_ids: tuple[str, ...] = ()) -> None:
        self.job_ids = job_ids
        super().__init__(message)


class NotConnectedError(PublishError):
    """The connection to RabbitMQ was lost and is not back yet. The job was not accepted and never left this process."""


class UnroutableError(PublishError):
    """The target queue does not exist. The job was not accepted."""


class RejectedError(PublishError):
    """RabbitMQ refused the job (nack). It was not accepted."""


class BlockedError(PublishError):
    """RabbitMQ has blocked publishers (memory or disk alarm) for longer than the time-out."""


class ConfirmTimeoutError(PublishError):
    """RabbitMQ did not answer in time. The job may have been accepted; enqueue it again under the same id."""


class EnqueueManyError(FloodgateError):
    """``enqueue_many`` stopped part-way, for the reason in ``__cause__``.

    Of the jobs taken from the iterable, ``accepted`` are safe and ``failed`` are not known to be safe. ``job_ids`` are
    the ids of the latter, the first thousand of them. Nothing more was taken from the iterable.
    """

    def __init__(self, reason: str, *, accepted: int, failed: int, job_ids: tuple[str, ...]) -> None:
        self.accepted = accepted
        self.failed = failed
        self.job_ids = job_ids
        super().__init__(
            f"{accepted} jobs are safe, {failed} are not known to be, and no more were taken: {reason} "
            "Enqueue those in job_ids again, then the rest of the iterable."
        )


class ClosedError(FloodgateError):
    """The client is closed. Create another, or close it later."""


class CallError(FloodgateError):
    """A Bot API call failed on the network. The message never contains the URL, since that contains the token."""


class NotSentError(CallError):
    """The call certainly never reached the Bot API: repeating it cannot do anything twice."""


class CutOffError(CallError):
    """The connection was lost or went silent during the call, which may have taken effect."""


class StateError(FloodgateError):
    """The state store refused or failed."""


class StateUnavailableError(StateError):
    """The state store is down, locked, read-only or full. Sends wait until it is back."""


class StateSchemaError(StateError):
    """The state store was written by another version of Floodgate."""


class SpoolError(FloodgateError):
    """The spool is missing, full, unreachable or read-only."""


class UploadMissingError(SpoolError):
    """An upload is not in the spool: it was removed, or deleted after `FLOODGATE_SPOOL_SECONDS`."""


class NotSettledError(FloodgateError):
    """The job did not end within the requested time, or no worker knows it. A job that was enqueued is still safe."""


class HandlersStoppedError(FloodgateError):
    """The handlers of updates stopped their event loop, as ``stop_running()`` does, so their worker ended."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(
            f"{name} stopped this worker: {reason}. Updates that it has not handled stay in their queues: start the "
            "worker again to handle them."
        )


class DeadLetteredError(FloodgateError):
    """The job will not be sent, for ``reason``. An operator can inspect and replay it.

    ``error`` is Telegram's answer if Telegram refused the job: ``error_code``, ``description`` and perhaps
    ``parameters``.
    """

    def __init__(self, job_id: str, reason: str, error: dict[str, Any] | None = None) -> None:
        self.job_id = job_id
        self.reason = reason
        self.error = error
        super().__init__(f"Job {job_id} was not sent: {reason}. `floodgate dead-letters` shows it and can replay it.")
