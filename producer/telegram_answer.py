"""The answer that the Bot API would give to a finished job, for code that speaks the Bot API in its place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from floodgate.broker.admission.contract import CANCELLED, SHED, SUPERSEDED, Record, Standing
from floodgate.broker.messages.method_table import Charge

# The error code that tells a caller most about each of our own dead-letter reasons.
_CODE_BY_REASON: Final[Mapping[str, int]] = {
    CANCELLED: 409,
    "expired": 410,
    SHED: 410,
    SUPERSEDED: 409,
    "uncertain": 409,
    "exhausted": 500,
    "delivery-limit": 500,
    "unknown-bot": 401,
}
_OTHER_REASONS_CODE: Final = 400


def as_answered(record: Record, charge: Charge) -> Record:
    """The record that a caller of the Bot API sees. Typing that was shed is done: no library expects an error there."""
    if charge is Charge.TYPING and record.reason == SHED:
        return Record(Standing.SENT, result=True)
    return record


def answer_to(job_id: str, record: Record) -> tuple[int, dict[str, Any]]:
    """The HTTP status and body: Telegram's result or error, or an error of ours if the call was never made."""
    if (error := record.error) is not None:
        return error["error_code"], error_body(error["error_code"], error["description"], error.get("parameters"))
    if record.standing is Standing.SENT:
        return 200, {"ok": True, "result": record.result}
    reason = record.reason or "unknown"
    code = _CODE_BY_REASON.get(reason, _OTHER_REASONS_CODE)
    return code, error_body(code, f"Not sent: {reason} (job {job_id}).")


def error_body(code: int, description: str, parameters: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """An error in Telegram's form."""
    fields: dict[str, Any] = {"ok": False, "error_code": code, "description": description}
    if parameters:
        fields["parameters"] = dict(parameters)
    return fields
