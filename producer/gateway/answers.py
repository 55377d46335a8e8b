"""Everything the gateway says to a Bot API call, in Telegram's own JSON, so that every library understands it.

What Telegram said itself is given on unchanged. What the gateway says for itself uses codes on which no library that we
know tries again by itself, unless trying again is right: a repeat without an idempotency key is a second message.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from starlette.responses import Response

from broker.admission.contract import CANCELLED, Record, Standing

JOB_HEADER: Final = "X-Floodgate-Job-Id"

# Telegram's code for what the dead-letter reasons of ours mean to a caller.
_CODE_BY_REASON: Final[Mapping[str, int]] = {
    CANCELLED: 409,
    "expired": 410,
    "uncertain": 409,
    "exhausted": 500,
    "delivery-limit": 500,
    "unknown-bot": 401,
}
_OTHER_REASONS_CODE: Final = 400


class TelegramAnswer(Response):
    """A body in the Bot API's form."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode(errors="surrogatepass")


class RefusalError(Exception):
    """The gateway says no, before anything was accepted."""

    def __init__(self, code: int, description: str, **parameters: Any) -> None:
        super().__init__(description)
        self.code = code
        self.description = description
        self.parameters = parameters

    def answer(self) -> TelegramAnswer:
        headers = {"Retry-After": str(self.parameters["retry_after"])} if "retry_after" in self.parameters else None
        return refused(self.code, self.description, self.parameters, headers)


def refused(
    code: int, description: str, parameters: Mapping[str, Any] | None = None, headers: dict[str, str] | None = None
) -> TelegramAnswer:
    """An error in Telegram's form."""
    fields: dict[str, Any] = {"ok": False, "error_code": code, "description": description}
    if parameters:
        fields["parameters"] = dict(parameters)
    return TelegramAnswer(fields, status_code=code, headers=headers)


def ended(job_id: str, record: Record) -> TelegramAnswer:
    """What became of a job: Telegram's result, Telegram's error, or ours."""
    headers = {JOB_HEADER: job_id}
    if (error := record.error) is not None:
        return refused(error["error_code"], error["description"], error.get("parameters"), headers)
    if record.standing is Standing.SENT:
        return TelegramAnswer({"ok": True, "result": record.result}, headers=headers)
    reason = record.reason or "unknown"
    code = _CODE_BY_REASON.get(reason, _OTHER_REASONS_CODE)
    return refused(code, f"Not sent: {reason}. Job {job_id} is among the dead letters.", None, headers)


def accepted(job_id: str) -> TelegramAnswer:
    """202 for callers that do not wait."""
    return TelegramAnswer(
        {"ok": True, "result": {"floodgate_job_id": job_id, "status_url": status_url(job_id)}},
        status_code=202,
        headers={JOB_HEADER: job_id},
    )


def still_waiting(job_id: str, why: str) -> TelegramAnswer:
    """The wait is over and the job is not. 408: on 429 and 5xx several libraries would send once more by themselves."""
    description = (
        f"{why} Job {job_id} is safe and will be sent. Ask GET {status_url(job_id)}/result, or repeat the request "
        "with the same X-Floodgate-Idempotency-Key if it had one; another repeat would be another message."
    )
    return refused(408, description, {"floodgate_job_id": job_id}, {JOB_HEADER: job_id})


def status_url(job_id: str) -> str:
    return f"/floodgate/v1/jobs/{job_id}"


UNAUTHORIZED: Final = (401, "Unauthorized")
