"""The gateway's answers to Bot API calls, in Telegram's own JSON, so that every library understands them.

Telegram's own answers are passed on unchanged. The gateway's own errors use status codes that no library known to us
retries automatically, unless a retry is right: a retry without an idempotency key sends a second message.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from starlette.responses import Response

from floodgate.broker.admission.contract import Record
from floodgate.broker.messages.job import Job
from floodgate.producer.gateway.placeholders import placeholder
from floodgate.producer.telegram_answer import answer_to, error_body

JOB_HEADER: Final = "X-Floodgate-Job-Id"


class TelegramAnswer(Response):
    """A body in the Bot API's form."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode(errors="surrogatepass")


class RefusalError(Exception):
    """The gateway refuses a request before anything was accepted."""

    def __init__(self, code: int, description: str, **parameters: Any) -> None:
        super().__init__(description)
        self.code = code
        self.description = description
        self.parameters = parameters

    def answer(self) -> TelegramAnswer:
        """The HTTP response for this refusal."""
        headers = {"Retry-After": str(self.parameters["retry_after"])} if "retry_after" in self.parameters else None
        return refused(self.code, self.description, self.parameters, headers)


def refused(
    code: int, description: str, parameters: Mapping[str, Any] | None = None, headers: dict[str, str] | None = None
) -> TelegramAnswer:
    """An error in Telegram's form."""
    return TelegramAnswer(error_body(code, description, parameters), status_code=code, headers=headers)


def ended(job_id: str, record: Record) -> TelegramAnswer:
    """The answer for a finished job: Telegram's result or error, or an error of ours."""
    code, body = answer_to(job_id, record)
    return TelegramAnswer(body, status_code=code, headers={JOB_HEADER: job_id})


def accepted(job: Job) -> TelegramAnswer:
    """The answer 202, for callers that do not wait."""
    return TelegramAnswer(
        {"ok": True, "result": placeholder(job), "floodgate_job_id": job.id, "status_url": status_url(job.id)},
        status_code=202,
        headers={JOB_HEADER: job.id},
    )


def still_waiting(job_id: str, why: str) -> TelegramAnswer:
    """The answer 408, if the wait ends before the job does. On 429 and 5xx several libraries would send it again."""
    description = (
        f"{why} Job {job_id} is safe and will be sent. Get its result from {status_url(job_id)}/result, or repeat the "
        "request with the same X-Floodgate-Idempotency-Key if it had one; without one, a repeat sends another message."
    )
    return refused(408, description, {"floodgate_job_id": job_id}, {JOB_HEADER: job_id})


def status_url(job_id: str) -> str:
    """The path at which a job's status is served."""
    return f"/floodgate/v1/jobs/{job_id}"


UNAUTHORIZED: Final = (401, "Unauthorized")
