"""Placeholder results for sends that do not wait for Telegram: objects of the right type, with message id 0.

The Bot API itself gives the id 0 to a message that it will send later. Such a message can be read, but not edited,
replied to or deleted by its id. If no placeholder could be correct (an invite link, a poll's results), the send waits
for Telegram's own answer, whatever the setting says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from floodgate.broker.messages.job import unix_ms
from floodgate.broker.messages.method_table import METHODS, Charge

_NOTHING: Final = frozenset(
    {"sendPoll", "sendChecklist"}
)  # the library reads a poll and a checklist out of the message
# Prefixes of actions that return only True.
_TRUE_VERBS: Final = ("delete", "pin", "unpin", "set", "read", "send", "ban", "unban", "restrict", "promote", "leave")


def stand_in(method: str, params: Mapping[str, Any]) -> Any:
    """Return a placeholder for the result of a call that has not been made; None if there can be none."""
    known = METHODS.get(method)
    if known is None or method in _NOTHING:
        return None
    match known.returns:
        case "list[Message]":
            return [_message(params) for _ in params.get(known.counted_by) or ()]
        case "list[MessageId]":
            return [{"message_id": 0} for _ in params.get(known.counted_by) or ()]
        case "MessageId":
            return {"message_id": 0}
        case "Message" if known.charge is Charge.MESSAGE:
            return _message({name: params[name] for name in ("chat_id", "text") if name in params})
        case "Message" | "Message | True":
            return True if "inline_message_id" in params else _message(params)
        case "True" if known.charge is not Charge.ACTION or method.startswith(_TRUE_VERBS):
            return True
        case _:
            return None


def _message(params: Mapping[str, Any]) -> dict[str, Any]:
    text = {"text": params["text"]} if isinstance(params.get("text"), str) else {}
    return {
        "message_id": int(params.get("message_id") or 0),
        "date": unix_ms() // 1000,
        "chat": _chat(params.get("chat_id")),
        **text,
    }


def _chat(chat_id: Any) -> dict[str, Any]:
    """Build a chat object from its id alone."""
    if isinstance(chat_id, str) and chat_id.startswith("@"):
        return {"id": 0, "type": "channel", "username": chat_id[1:]}
    number = int(chat_id) if str(chat_id).lstrip("-").isdigit() else 0
    return {"id": number, "type": "private" if number >= 0 else "supergroup"}
