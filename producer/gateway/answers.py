"""Everything the gateway says to a Bot API call, in Telegram's own JSON, so that every library understands it.

What Telegram said itself is given on unchanged. What the gateway says for itself uses codes on which no library that we
know tries again by itself, unless trying again is right: a repeat without an idempotency key is a second message.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from starlette.responses import Response

from floodgate.broker.admission.contract import Record
from floodgate.producer.telegram_answer import answer_to, error_body

JOB_HEADER: Final = "X-Floodgate-Job-Id"


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
    return TelegramAnswer(error_body(code, description, parameters), status_code=code, headers=headers)


def ended(job_id: str, record: Record) -> TelegramAnswer:
    """What became of a job: Telegram's result, Telegram's error, or ours."""
    code, body = answer_to(job_id, record)
    return TelegramAnswer(body, status_code=code, headers={JOB_HEADER: job_id})


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
