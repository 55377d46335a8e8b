"""The result of a call whose caller does not wait, in the form that the method's own result has.

A library parses the result before its caller sees it, so a result of any other form fails after the job was accepted.
A message has ``message_id`` 0, as in Telegram's own answer for a message that it sends later. Each object in the result
carries ``floodgate_job_id``, because libraries pass on nothing but the result.

Pure.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from floodgate.broker.messages.chats import ChatKind, chat_kind
from floodgate.broker.messages.job import Job
from floodgate.broker.messages.methods import find_method

# One of the colours that Telegram allows for a topic's icon.
_ICON_COLOR: Final = 0x6FB9F0


def placeholder(job: Job) -> Any:
    """Return a result that a library can parse as the result of the job's method."""
    corrected = {job.method.lower(): job.charge} if job.charge is not None else {}
    return _MAKERS.get(find_method(job.method, corrected).returns, _true)(job)


def _true(_job: Job) -> bool:
    return True


def _message(job: Job) -> dict[str, Any] | bool:
    """Make a message; True for an edit of an inline message, to which Telegram answers that."""
    if chat_kind(job.chat) is ChatKind.INLINE:
        return True
    return {**_message_id(job), "date": int(time.time()), "chat": _chat(job)}


def _message_id(job: Job) -> dict[str, Any]:
    return {"message_id": 0, "floodgate_job_id": job.id}


def _as_many(make: Callable[[Job], Any]) -> Callable[[Job], list[Any]]:
    return lambda job: [make(job)] * job.cost


def _chat(job: Job) -> dict[str, Any]:
    key = job.chat or ""
    match chat_kind(job.chat):
        case ChatKind.USER:
            return {"id": int(key), "type": "private", "first_name": ""}
        case ChatKind.GROUP:
            return {"id": int(key), "type": "supergroup", "title": ""}
        case ChatKind.NAME:
            return {"id": 0, "type": "supergroup", "title": "", "username": key.removeprefix("@")}
        case ChatKind.INLINE | ChatKind.NONE:
            return {"id": 0, "type": "private", "first_name": ""}


def _topic(job: Job) -> dict[str, Any]:
    name = str(job.params.get("name", ""))
    return {"message_thread_id": 0, "name": name, "icon_color": _ICON_COLOR, "floodgate_job_id": job.id}


def _link(_job: Job) -> str:
    return ""


def _invite_link(job: Job) -> dict[str, Any]:
    creator = {"id": 0, "is_bot": True, "first_name": ""}
    flags = dict.fromkeys(("creates_join_request", "is_primary", "is_revoked"), False)
    return {"invite_link": "", "creator": creator, **flags, "floodgate_job_id": job.id}


def _story(job: Job) -> dict[str, Any]:
    return {"id": 0, "chat": _chat(job), "floodgate_job_id": job.id}


def _poll(job: Job) -> dict[str, Any]:
    counted = {"id": "0", "question": "", "options": [], "total_voter_count": 0, "type": "regular"}
    flags = dict.fromkeys(("allows_multiple_answers", "allows_revoting", "members_only"), False)
    return {**counted, **flags, "is_closed": True, "is_anonymous": True, "floodgate_job_id": job.id}


# By the type of the result in the table of methods. One of another type is most likely true.
_MAKERS: Final[Mapping[str, Callable[[Job], Any]]] = MappingProxyType(
    {
        "Message": _message,
        "Message | True": _message,
        "list[Message]": _as_many(_message),
        "MessageId": _message_id,
        "list[MessageId]": _as_many(_message_id),
        "ForumTopic": _topic,
        "Poll": _poll,
        "ChatInviteLink": _invite_link,
        "Story": _story,
        "str": _link,
    }
)
