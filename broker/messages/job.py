"""The job: one Bot API call to make, as it travels through RabbitMQ.

A message's body is a Dramatiq message for the actor ``send`` whose one argument is the job, so that any Dramatiq tool
can read it and the message id is the job's id:

    {"queue_name": "send.default.bulk.07", "actor_name": "send", "args": [], "kwargs": {"job": {"v": 1, …}},
     "options": {}, "message_id": "<job id>", "message_timestamp": <unix ms>}

``v`` is the version of the job's own fields. A reader refuses a version it does not know (the bytes go to
``dead.malformed`` as they came); new optional fields do not raise the version.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic_core import PydanticSerializationError, to_jsonable_python

from floodgate.broker.errors import InvalidParamsError, MalformedJobError, UnknownMethodError
from floodgate.broker.messages.chats import chat_key
from floodgate.broker.messages.local_files import check_params
from floodgate.broker.messages.method_table import Charge
from floodgate.broker.messages.methods import TYPING_WORTH, answer_within, can_pay, canonical_method, cost, find_method
from floodgate.broker.messages.partitions import partition_of
from floodgate.broker.messages.spooled_file import SpooledFile

SEND_ACTOR: Final = "send"
VERSION: Final = 1
# RabbitMQ carries more, but a job holds text and references, never files. Telegram's longest text is 4096 characters.
MAX_JOB_BYTES: Final = 512 * 1024
# Methods that act on one of these edit one message, which the ids among the parameters identify within its chat.
_MESSAGES: Final = frozenset({"@message", "message_id", "ephemeral_message_id"})
_MESSAGE_IDS: Final = ("message_id", "receiver_user_id", "ephemeral_message_id", "business_connection_id")
_MILLISECOND: Final = timedelta(milliseconds=1)

JOB_ID: Final = r"^[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}$"  # also the name of a folder in the spool: never "." or ".."
JobId = Annotated[str, StringConstraints(pattern=JOB_ID)]
BotName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")]
# What `floodgate.broker.messages.chats.chat_key` makes, or the id of an inline message, which is Telegram's to choose.
ChatKey = Annotated[str, StringConstraints(pattern=r"^(-?[1-9][0-9]{0,15}|@[a-z][a-z0-9_]{2,31}|inline:.{1,500})$")]


def _method(name: str) -> str:
    try:
        return canonical_method(name)
    except UnknownMethodError:
        raise ValueError("not a method of the Bot API that can be a job") from None


def _safe_params(params: dict[str, Any]) -> dict[str, Any]:
    check_params(params)
    return params


class Priority(StrEnum):
    """The urgency of a job: ``interactive`` goes before ``bulk``."""

    INTERACTIVE = "interactive"  # a person, now
    BULK = "bulk"  # nobody in particular: a broadcast


class OnUncertain(StrEnum):
    """The action for a job whose call may or may not have taken effect."""

    RESEND = "resend"
    DEAD_LETTER = "dead-letter"


class Job(BaseModel):
    """One Bot API call. Times are Unix time in milliseconds; ``chat`` is a chat key (see
    :mod:`floodgate.broker.messages.chats`)."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    v: Literal[1] = VERSION
    id: JobId
    bot: BotName = "default"
    method: Annotated[str, AfterValidator(_method)]
    charge: Charge | None = None
    """The class that ``FLOODGATE_METHODS`` gives the method where the job was made; None: see :attr:`charged_as`."""
    params: Annotated[dict[str, Any], AfterValidator(_safe_params)]
    priority: Priority = Priority.INTERACTIVE
    chat: ChatKey | None = None
    cost: Annotated[int, Field(ge=1, le=100)] = 1
    created_ms: int
    not_before_ms: int | None = None
    expires_ms: int | None = None
    worth_until_ms: int | None = None
    """After this time it is shed: it ends without a dead letter."""
    dedupe_key: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = None
    campaign: Annotated[str, StringConstraints(min_length=1, max_length=100)] | None = None
    coalesce: Annotated[str, StringConstraints(min_length=1, max_length=100)] | None = None
    """Of the jobs with the same key that wait in a chat, only the newest is sent."""
    final: bool = False
    """Whether no later job with its key supersedes it."""
    on_uncertain: OnUncertain = OnUncertain.RESEND
    files: tuple[SpooledFile, ...] = ()
    """Uploads that wait in the spool (:mod:`floodgate.broker.uploads.spool`)."""
    attempts: Annotated[int, Field(ge=0)] = 0
    """Calls made so far. Waits for the rate limit do not count."""
    unsent: Annotated[int, Field(ge=0)] = 0
    """How many of them certainly never reached Telegram. Bounded by the job's age, not by ``max_attempts``."""
    known: Annotated[bool | None, Field(exclude=True)] = None
    """Set by the client that enqueues a job with a `dedupe_key`: whether the ledger already has a job under that key;
    None if the ledger was not asked or did not answer. Not sent to the queue."""
    died: Annotated[str | None, Field(exclude=True)] = None
    """Set together with ``known``: why the job under that key became a dead letter; None if it did not."""

    @property
    def paid(self) -> bool:
        """Whether it is charged as a paid broadcast: it requests one, and its method has the parameter."""
        return can_pay(self.method) and self.params.get("allow_paid_broadcast") is True

    @property
    def answers_query(self) -> bool:
        """Whether it answers a query that expires in seconds. It has a queue of its own and waits for nothing."""
        return self.charged_as is Charge.ANSWER

    @property
    def charged_as(self) -> Charge:
        """Which budgets it draws on, unless the worker's own ``FLOODGATE_METHODS`` says otherwise."""
        return self.charge or find_method(self.method).charge

    @property
    def edited_message(self) -> str | None:
        """Distinguishes the message that the job edits from others of its chat; None if it edits none."""
        if self.charged_as is not Charge.EDIT or not _MESSAGES.intersection(find_method(self.method).acts_on):
            return None
        return " ".join(f"{name}={self.params[name]}" for name in _MESSAGE_IDS if name in self.params)[:200]

    @property
    def content(self) -> str | None:
        """A hash of method, chat and parameters if there is a dedupe key, else None. Ignores file contents."""
        if self.dedupe_key is None:
            return None
        params = {name: _as_in_a_form(name, value) for name, value in self.params.items() if name != "chat_id"}
        text = json.dumps([self.method, self.chat, params], sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    def expired(self, now_ms: int) -> bool:
        """Return whether the job has expired at ``now_ms``."""
        return self.expires_ms is not None and now_ms >= self.expires_ms

    def worth(self, now_ms: int) -> timedelta | None:
        """Return for how much longer the job is worth sending, which may be negative; None means always."""
        return None if self.worth_until_ms is None else (self.worth_until_ms - now_ms) * _MILLISECOND

    def partition(self, partitions: int) -> int:
        """Return the job's partition: that of its chat, or of its id if it has no chat."""
        return partition_of(self.chat or self.id, partitions)


def _as_in_a_form(name: str, value: Any) -> str:
    """A parameter as text, the same whether it came as JSON or in a form, where numbers, flags and objects are text."""
    if not isinstance(value, str):
        return json.dumps(to_jsonable_python(value), sort_keys=True)
    if name in ("text", "caption") or value.lstrip()[:1] not in ("[", "{"):
        return value
    try:
        return json.dumps(json.loads(value), sort_keys=True)
    except (ValueError, RecursionError):
        return value


def new_job(
    method: str,
    params: dict[str, Any],
    *,
    bot: str = "default",
    priority: Priority | str = Priority.INTERACTIVE,
    job_id: str | None = None,
    now_ms: int | None = None,
    **options: Any,
) -> Job:
    """Create a valid job. An answer to a query gets an ``expires_ms``, and typing or a draft a ``worth_until_ms``,
    unless one is given.

    The method may be newer than the table of methods.

    Raises:
        UnknownMethodError: no method can have this name, or it cannot be a job.
        InvalidParamsError: a parameter is invalid, which was found without asking Telegram.
    """
    method = canonical_method(method)
    params = {name: value for name, value in params.items() if value is not None}
    created_ms = unix_ms() if now_ms is None else now_ms
    charge = options.get("charge") or find_method(method).charge
    from_ms = options.get("not_before_ms") or created_ms
    if charge is Charge.ANSWER and options.get("expires_ms") is None:
        options["expires_ms"] = from_ms + answer_within(method) // _MILLISECOND
    if charge is Charge.TYPING and options.get("worth_until_ms") is None:
        options["worth_until_ms"] = from_ms + TYPING_WORTH // _MILLISECOND
    try:
        return Job(
            id=job_id or secrets.token_hex(16),
            bot=bot,
            method=method,
            params=params,
            priority=Priority(priority),
            chat=job_chat(params),
            cost=cost(method, params),
            created_ms=created_ms,
            **options,
        )
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise InvalidParamsError(f"{field}: {_said(first['msg'])}.") from None
    except ValueError as error:
        raise InvalidParamsError(f"{error}.") from None


def stand_in(bot: str, job_id: str, chat: str | None = None) -> Job:
    """Return a job with this id in place of one whose content is not known, which is enough to cancel it.

    Raises:
        InvalidParamsError: it is not an id.
    """
    return new_job("getMe", {"chat_id": chat}, bot=bot, job_id=job_id)


def job_chat(params: dict[str, Any]) -> str | None:
    """Return the chat key that a call with these parameters is charged to; None if they name no chat."""
    if (chat_id := params.get("chat_id")) is not None:
        return chat_key(chat_id)
    if inline := params.get("inline_message_id"):
        return f"inline:{inline}"
    if (user_id := params.get("user_id")) is not None:
        return chat_key(user_id)
    return None


def encode_job(job: Job, queue_name: str) -> bytes:
    """Return the message body of ``job`` on ``queue_name``. Queue name and id are plain ASCII without quotes.

    Raises:
        InvalidParamsError: the parameters cannot be written as JSON, or the body is too large for a queue.
    """
    try:
        fields = job.model_dump_json(exclude_defaults=True, exclude={"v"})
    except PydanticSerializationError:
        raise InvalidParamsError(
            "params contain a value that JSON cannot carry; use text, numbers, lists and dicts."
        ) from None
    body = (
        f'{{"queue_name":"{queue_name}","actor_name":"{SEND_ACTOR}","args":[],"kwargs":{{"job":{{"v":{VERSION},{fields[1:]}'
        f'}},"options":{{}},"message_id":"{job.id}","message_timestamp":{job.created_ms}}}'
    ).encode()
    if len(body) > MAX_JOB_BYTES:
        raise InvalidParamsError(
            f"The job has {len(body)} bytes, and the limit is {MAX_JOB_BYTES}: send files by file_id or URL."
        )
    return body


def decode_job(body: bytes) -> Job:
    """Decode the job in a message body.

    Raises:
        MalformedJobError: the bytes are not a Dramatiq message with a job of a known version.
    """
    try:
        return parse_job(json.loads(body)["kwargs"]["job"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise MalformedJobError(f"Not a job: {type(error).__name__}.") from None


def parse_job(fields: object) -> Job:
    """Parse the job in a decoded message's ``job`` argument.

    Raises:
        MalformedJobError: the fields are not a job of a known version.
    """
    try:
        return Job.model_validate(fields)
    except ValidationError as error:
        faults = error.errors(include_input=False)
        raise MalformedJobError(f"Not a job: {', '.join(map(_fault, faults))}.") from None


def _fault(item: Any) -> str:
    """Return a field's name, with the fault if Floodgate itself found it."""
    where = ".".join(map(str, item["loc"])) or "job"
    return f"{where}: {_said(item['msg'])}" if item["type"] == "value_error" else where


def _said(message: str) -> str:
    return message.removeprefix("Value error, ")


def unix_ms() -> int:
    """Return the current Unix time in milliseconds."""
    return time.time_ns() // 1_000_000
