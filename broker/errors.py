"""Every error Floodgate raises, drawn as one tree.

    FloodgateError
    ├── SettingsError            a setting is missing or wrong
    ├── JobError                 a job that can be known wrong without asking Telegram
    │   ├── UnknownMethodError
    │   ├── UnknownBotError
    │   ├── InvalidParamsError
    │   └── MalformedJobError    bytes that are no job
    │       └── MalformedUpdateError  … and no update
    ├── RabbitMQError
    │   ├── RabbitMQUnreachableError
    │   ├── AccessRefusedError       wrong user, password or vhost
    │   ├── UnsupportedServerError
    │   ├── TopologyError            a queue or exchange exists and is declared otherwise, or is missing
    │   │   └── DeclareRefusedError      … and this account may not make it
    │   └── PublishError             the job is not safe; nothing was accepted
    │       ├── NotConnectedError    the connection was lost, and is not back yet
    │       ├── UnroutableError
    │       ├── RejectedError        RabbitMQ said no (nack)
    │       ├── BlockedError         a memory or disk alarm outlasted our patience
    │       └── ConfirmTimeoutError  no answer: the job may or may not be there
    ├── EnqueueManyError         it ended in the middle: which jobs are safe, which are not
    ├── ClosedError              a client was used after its close
    ├── CallError                a Bot API call broke on its way; what the library's network errors were raised from
    │   ├── NotSentError         it surely never reached the Bot API
    │   └── CutOffError          it may have reached it, and acted
    ├── StateError
    │   ├── StateUnavailableError    the state store is down, locked, read-only or full
    │   └── StateSchemaError         the state store was written by another version
    ├── SpoolError               uploads cannot be kept or read
    │   └── UploadMissingError       the spool is there and the upload is not
    ├── NotSettledError          a result was asked for that is not there yet
    └── DeadLetteredError        a result was asked for of a job that will not be sent

A message is one sentence that says what is wrong and one that says what to do. Data travels on the exception.
"""

from __future__ import annotations

from typing import Any


class FloodgateError(Exception):
    """Root of all errors raised by Floodgate."""


class SettingsError(FloodgateError):
    """A setting is missing or wrong; the message names the variable and the fix."""


class JobError(FloodgateError):
    """The job is wrong in a way that is known before Telegram is asked. Nothing was queued."""


class UnknownMethodError(JobError):
    """The Bot API has no method of this name."""


class UnknownBotError(JobError):
    """No bot of this name is configured."""


class InvalidParamsError(JobError):
    """The parameters cannot be accepted by the Bot API or cannot be carried by a queue."""


class MalformedJobError(JobError):
    """Bytes in a queue that are no job of ours."""


class MalformedUpdateError(MalformedJobError):
    """What came, from Telegram or from a queue, is no update that can be kept in order and told from others."""


class RabbitMQError(FloodgateError):
    """RabbitMQ refused, failed or could not be reached."""


class RabbitMQUnreachableError(RabbitMQError):
    """No configured RabbitMQ address accepted a connection in time."""


class AccessRefusedError(RabbitMQError):
    """RabbitMQ answered and turned us away: wrong user or password, or no such vhost for this user."""


class UnsupportedServerError(RabbitMQError):
    """The server is older than RabbitMQ 4.0, or is no RabbitMQ."""

    def __init__(self, product: str, version: str) -> None:
        self.product = product
        self.version = version
        super().__init__(
            f"The server is {product} {version}, and Floodgate needs RabbitMQ 4.0 or newer. "
            "Upgrade it, or point FLOODGATE_RABBITMQ_URL at another server (scripts/rabbitmq start gives you one)."
        )


class TopologyError(RabbitMQError):
    """A queue or exchange is missing, or exists with other arguments than ours."""


class DeclareRefusedError(TopologyError):
    """This RabbitMQ account may not make queues. Use one that may: `floodgate topology apply` with the operator's."""


class PublishError(RabbitMQError):
    """RabbitMQ did not take the job. ``job_ids`` are those that are not known to be safe."""

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
    """RabbitMQ blocks publishers (memory or disk alarm) for longer than the time-out."""


class ConfirmTimeoutError(PublishError):
    """RabbitMQ did not answer in time. The job may have been accepted; enqueue it again under the same id."""


class EnqueueManyError(FloodgateError):
    """``enqueue_many`` ended in the middle, for the reason in ``__cause__``.

    ``accepted`` jobs are safe: all that were taken from the iterable but the ``failed`` ones, which are not known to
    be safe. ``job_ids`` are the ids of those, the first thousand. Nothing more was taken from the iterable.
    """

    def __init__(self, reason: str, *, accepted: int, failed: int, job_ids: tuple[str, ...]) -> None:
        self.accepted = accepted
        self.failed = failed
        self.job_ids = job_ids
        super().__init__(
            f"{accepted} jobs are safe, {failed} are not known to be, and no more were taken: {reason} "
            "Enqueue those in job_ids again, then what is left of the iterable."
        )


class ClosedError(FloodgateError):
    """The client was closed. Make another, or close it later."""


class CallError(FloodgateError):
    """A Bot API call broke on its way. The message never holds the URL, which holds the token."""


class NotSentError(CallError):
    """The call surely never reached the Bot API: it can be made again without doing anything twice."""


class CutOffError(CallError):
    """The connection was lost or went silent with the call under way: it may have acted."""


class StateError(FloodgateError):
    """The state store refused or failed."""


class StateUnavailableError(StateError):
    """The state store is down, locked, read-only or full. Sends wait until it is back."""


class StateSchemaError(StateError):
    """The state store was written by another version of Floodgate."""


class SpoolError(FloodgateError):
    """The spool is missing, full, away or not to be written."""


class UploadMissingError(SpoolError):
    """An upload is not in the spool: it was swept after `FLOODGATE_SPOOL_SECONDS`, or removed."""


class NotSettledError(FloodgateError):
    """The job has not ended within the time asked for. It is still safe."""


class DeadLetteredError(FloodgateError):
    """The job will not be sent, for ``reason``. An operator can look at it and replay it.

    ``error`` is what Telegram said, if it was Telegram that said no: ``error_code``, ``description``, perhaps
    ``parameters``.
    """

    def __init__(self, job_id: str, reason: str, error: dict[str, Any] | None = None) -> None:
        self.job_id = job_id
        self.reason = reason
        self.error = error
        super().__init__(f"Job {job_id} was not sent: {reason}. `floodgate dead-letters` shows it and can replay it.")
