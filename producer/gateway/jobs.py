"""The job API, for callers that want jobs instead of the Bot API. OpenAPI describes it at ``/docs``.

A job is looked up by its id among the jobs of the caller's bot.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from floodgate.broker.admission.contract import CANCELLED, Record
from floodgate.broker.admission.policy import ask_for
from floodgate.broker.errors import UnknownMethodError
from floodgate.broker.messages.job import JOB_ID, OnUncertain, Priority, stand_in
from floodgate.producer.gateway.answers import RefusalError
from floodgate.producer.gateway.api import BoundedRoute, Caller, error_responses, gateway_of
from floodgate.producer.gateway.request_body import request_body
from floodgate.producer.gateway.request_options import RequestOptions, is_option
from floodgate.producer.gateway.routes import Route, route_of

JobIdPath = Annotated[str, Path(pattern=JOB_ID, description="The id that enqueueing returned.")]


class NewJob(BaseModel):
    """A Bot API call to make."""

    model_config = ConfigDict(extra="forbid")

    method: str = Field(
        description="A Bot API method that the gateway queues.", examples=["sendMessage"], max_length=64
    )
    params: dict[str, Any] = Field(
        default_factory=dict,
        description="The method's parameters, as the Bot API documents them.",
        examples=[{"chat_id": 42, "text": "hi"}],
    )
    priority: Priority = Field(Priority.INTERACTIVE, description="`bulk` is sent when no interactive job waits.")
    delay_seconds: float | None = Field(
        None, ge=0, le=33_000_000, description="Earliest time to send, relative to now."
    )
    expires_seconds: float | None = Field(None, gt=0, le=1e9, description="Latest time to send, relative to now.")
    worth_seconds: float | None = Field(
        None, gt=0, le=1e9, description="Until when it is worth sending, relative to now. A later job ends as `shed`."
    )
    dedupe_key: str | None = Field(
        None, min_length=1, max_length=200, description="Jobs of one bot with the same key are one job."
    )
    campaign: str | None = Field(None, min_length=1, max_length=100, description="A label by which to find the job.")
    coalesce: str | None = Field(
        None,
        min_length=1,
        max_length=100,
        description="Of the jobs of a chat with the same key that wait, only the newest is sent; the others end as "
        "`superseded`.",
    )
    final: bool = Field(False, description="Send it even if a newer job with the same `coalesce` key arrives.")
    on_uncertain: OnUncertain = Field(
        OnUncertain.RESEND, description="What to do if the call was cut off and may have taken effect."
    )


class JobStatus(BaseModel):
    """The status of a job."""

    job_id: str
    status: Literal["accepted", "waiting", "sending", "sent", "dead"] = Field(
        description="`accepted`: no worker has picked it up yet, or it is no longer remembered."
    )
    result: Any = Field(None, description="Telegram's result, if the job was sent.")
    reason: str | None = Field(None, description="Why a dead job was not sent.")
    error: dict[str, Any] | None = Field(
        None, description="Telegram's error, if the job is dead or there was nothing to do."
    )
    due_seconds: float | None = Field(
        None, description="Estimated time until a waiting job is sent, by what is known now."
    )


_errors: Final = partial(
    error_responses,
    {
        400: "The request is wrong.",
        401: "Unknown token or key.",
        403: "The key does not belong to this bot, or the gateway does not accept the method.",
        408: "The result is not available yet; the job is safe.",
        409: "The job was cancelled or cannot be cancelled, or its dedupe key was used for something else.",
        410: "The job expired before it could be sent.",
        413: "The request is too large.",
        422: "The request does not have this form.",
        500: "The job was given up after too many attempts.",
        429: "Too many jobs or callers are waiting; `parameters.retry_after` is the number of seconds to wait.",
        503: "RabbitMQ or the state store is unavailable. Nothing was accepted.",
    },
)
router: Final = APIRouter(prefix="/floodgate/v1", tags=["jobs"], route_class=BoundedRoute)


@router.post("/jobs", status_code=202, responses=_errors(400, 401, 403, 408, 409, 413, 422, 429, 503))
async def enqueue(request: Request, job: NewJob, bot: Caller) -> JobStatus:
    """Enqueue a job. Returns once RabbitMQ has it on disk, or with the status of an earlier job with its dedupe key."""
    try:
        row = route_of(gateway_of(request).settings.method(job.method))
    except UnknownMethodError as error:
        raise RefusalError(400, f"Bad Request: {error}") from None
    if row.route is not Route.QUEUED:
        raise RefusalError(400, f"Bad Request: {job.method!r} is not a method that the gateway queues")
    for name in job.params:
        if is_option(name):
            raise RefusalError(400, f"Bad Request: {name[:60]} is an option of the job: put it beside 'params'")
    sending = gateway_of(request).running.sending
    return _status(*await sending.accept(bot, row.method, request_body(job.params), _options_of(job)))


@router.get("/jobs/{job_id}", responses=_errors(401, 403, 422, 503))
async def status(request: Request, job_id: JobIdPath, bot: Caller) -> JobStatus:
    """Get the status of a job."""
    store = gateway_of(request).running.parts.store
    return _status(job_id, await store.lookup(bot, job_id))


_OWN_ANSWER: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "Telegram's own answer, `{ok: true, result: …}`. Its errors come with their own codes."}
}


@router.get("/jobs/{job_id}/result", responses=_OWN_ANSWER | _errors(400, 401, 403, 408, 409, 410, 422, 429, 500, 503))
async def result(
    request: Request,
    job_id: JobIdPath,
    bot: Caller,
    wait_seconds: Annotated[float, Query(ge=0, le=3600, description="How long to wait for the result.")] = 30,
) -> Response:
    """Wait for Telegram's own answer to a job, and return it as the Bot API would."""
    return await gateway_of(request).running.sending.result(request, bot, job_id, wait_seconds)


@router.delete("/jobs/{job_id}", responses=_errors(401, 403, 409, 422, 503))
async def cancel(request: Request, job_id: JobIdPath, bot: Caller) -> JobStatus:
    """Cancel a job. Only a waiting job can be cancelled."""
    gateway = gateway_of(request)
    job = stand_in(bot, job_id)
    record = await gateway.running.parts.store.cancel(ask_for(job, gateway.settings))
    if record.reason != CANCELLED:
        raise RefusalError(409, f"Conflict: job {job_id} is {record.standing}", floodgate_job_id=job_id)
    await gateway.running.parts.uploads.forget(job)
    return _status(job_id, record)


def _options_of(job: NewJob) -> RequestOptions:
    options = {
        "priority": job.priority,
        "delay": job.delay_seconds,
        "expires": job.expires_seconds,
        "worth_until": job.worth_seconds,
        "dedupe_key": job.dedupe_key,
        "campaign": job.campaign,
        "coalesce": job.coalesce,
        "final": job.final,
        "on_uncertain": job.on_uncertain,
    }
    return RequestOptions(0, None, {name: value for name, value in options.items() if value is not None})


def _status(job_id: str, record: Record | None) -> JobStatus:
    if record is None:
        return JobStatus(job_id=job_id, status="accepted")
    return JobStatus(
        job_id=job_id,
        status=record.standing.value,
        result=record.result,
        reason=record.reason,
        error=record.error,
        due_seconds=record.due.total_seconds() if record.due is not None else None,
    )
