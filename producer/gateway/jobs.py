"""The job API: for callers that want jobs, not the Bot API. Described by OpenAPI at ``/docs``.

A caller shows its token or gateway key as ``Authorization: Bearer …``. A job is found by its id among the jobs of the
caller's bot.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Security
from fastapi.responses import Response
from fastapi.routing import APIRoute
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, ConfigDict, Field

from floodgate.broker.admission.contract import CANCELLED, Record
from floodgate.broker.admission.policy import ask_for
from floodgate.broker.messages.job import JOB_ID, Job, OnUncertain, Priority, unix_ms
from floodgate.producer.gateway.answers import UNAUTHORIZED, RefusalError
from floodgate.producer.gateway.request_body import request_body, whole
from floodgate.producer.gateway.request_options import RequestOptions
from floodgate.producer.gateway.routes import Route, route_of
from floodgate.producer.gateway.state import GatewayState

JobIdPath = Annotated[str, Path(pattern=JOB_ID, description="The id that enqueueing returned.")]


class NewJob(BaseModel):
    """A Bot API call to make."""

    model_config = ConfigDict(extra="forbid")

    method: str = Field(description="A method of the Bot API that is queued.", examples=["sendMessage"], max_length=64)
    params: dict[str, Any] = Field(
        default_factory=dict,
        description="The method's parameters, as the Bot API documents them.",
        examples=[{"chat_id": 42, "text": "hi"}],
    )
    priority: Priority = Field(Priority.INTERACTIVE, description="`bulk` goes when nobody waits.")
    delay_seconds: float | None = Field(None, ge=0, le=33_000_000, description="Not before so long from now.")
    expires_seconds: float | None = Field(None, gt=0, le=1e9, description="Not after so long from now.")
    dedupe_key: str | None = Field(None, min_length=1, max_length=200, description="Jobs with one key are one job.")
    campaign: str | None = Field(None, min_length=1, max_length=100, description="A word to find the job by.")
    on_uncertain: OnUncertain = Field(OnUncertain.RESEND, description="When a call broke and may have acted.")


class JobStatus(BaseModel):
    """Where a job stands."""

    job_id: str
    status: Literal["accepted", "waiting", "sending", "sent", "dead"] = Field(
        description="`accepted`: no worker has come to it, or it is so long ago that it is forgotten."
    )
    result: Any = Field(None, description="Telegram's, of a job that was sent.")
    reason: str | None = Field(None, description="Why a dead job was not sent.")
    error: dict[str, Any] | None = Field(
        None, description="What Telegram said to a dead job, or to one that had nothing to do."
    )
    due_seconds: float | None = Field(
        None, description="In how long a waiting job is expected to go, by all that is known now."
    )


class ErrorResponse(BaseModel):
    """An error in the Bot API's form."""

    ok: Literal[False] = False
    error_code: int
    description: str
    parameters: dict[str, Any] | None = None


_ERRORS: Final[dict[int | str, dict[str, Any]]] = {
    code: {"model": ErrorResponse, "description": text}
    for code, text in {
        400: "The request is wrong.",
        401: "No such token or key.",
        403: "The key is none of this bot's, or the method is not for a gateway.",
        408: "The result is not there yet; the job is safe.",
        409: "The job was or cannot be cancelled, or its dedupe key was used for something else.",
        410: "Its time was over before it could be sent.",
        413: "The request is too large.",
        422: "The request is not of this form.",
        500: "It was given up after many attempts.",
        429: "Too many jobs or callers wait; `parameters.retry_after` says for how long to wait.",
        503: "RabbitMQ or the state store is away. Nothing was accepted.",
    }.items()
}


def _errors(*codes: int) -> dict[int | str, dict[str, Any]]:
    return {code: _ERRORS[code] for code in codes}


class BoundedRoute(APIRoute):
    """Reads the body within bounds before FastAPI would read it without."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def read_first(request: Request) -> Response:
            # Where Starlette keeps a body that was read, and looks for it: tests/acceptance/gateway would tell.
            request._body = await whole(request, _gateway(request).settings.gateway)
            return await handle(request)

        return read_first


_bearer: Final = HTTPBearer(auto_error=False, description="The bot's token, or a gateway key.")


def caller(
    request: Request,
    shown: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)],
    x_floodgate_bot: Annotated[str | None, Header(description="For keys of several bots.")] = None,
) -> str:
    """The bot that the caller may act as.

    Raises:
        RefusalError: it showed no secret, or a wrong one.
    """
    if shown is None:
        raise RefusalError(*UNAUTHORIZED)
    return _gateway(request).callers.bot(shown.credentials, x_floodgate_bot)


Caller = Annotated[str, Depends(caller)]
router: Final = APIRouter(prefix="/floodgate/v1", tags=["jobs"], route_class=BoundedRoute)


@router.post("/jobs", status_code=202, responses=_errors(400, 401, 403, 408, 409, 413, 422, 429, 503))
async def enqueue(request: Request, job: NewJob, bot: Caller) -> JobStatus:
    """Enqueue a job. Returns when RabbitMQ has it on disk, or with what became of the job under its dedupe key."""
    row = route_of(job.method)
    if row is None or row.route is not Route.QUEUED:
        raise RefusalError(400, f"Bad Request: {job.method!r} is no method that is queued")
    sending = _gateway(request).running.sending
    return _status(*await sending.accept(bot, row.method, request_body(job.params), _options_of(job)))


@router.get("/jobs/{job_id}", responses=_errors(401, 403, 422, 503))
async def status(request: Request, job_id: JobIdPath, bot: Caller) -> JobStatus:
    """Where a job stands."""
    store = _gateway(request).running.parts.store
    return _status(job_id, await store.lookup(bot, job_id))


_OWN_ANSWER: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "Telegram's own answer, `{ok: true, result: …}`. So is its error, under Telegram's code."}
}


@router.get("/jobs/{job_id}/result", responses=_OWN_ANSWER | _errors(400, 401, 403, 408, 409, 410, 422, 429, 500, 503))
async def result(
    request: Request,
    job_id: JobIdPath,
    bot: Caller,
    wait_seconds: Annotated[float, Query(ge=0, le=3600, description="For how long to wait for it.")] = 30,
) -> Response:
    """Telegram's own answer to a job, as the Bot API would give it; waits for it."""
    return await _gateway(request).running.sending.result(request, bot, job_id, wait_seconds)


@router.delete("/jobs/{job_id}", responses=_errors(401, 403, 409, 422, 503))
async def cancel(request: Request, job_id: JobIdPath, bot: Caller) -> JobStatus:
    """Take a job back. Only one that waits can be."""
    gateway = _gateway(request)
    job = Job(id=job_id, bot=bot, method="sendMessage", params={}, created_ms=unix_ms())
    record = await gateway.running.parts.store.cancel(ask_for(job, gateway.settings))
    if record.reason != CANCELLED:
        raise RefusalError(409, f"Conflict: job {job_id} is {record.standing}", floodgate_job_id=job_id)
    await gateway.running.parts.uploads.forget(job)
    return _status(job_id, record)


def _gateway(request: Request) -> GatewayState:
    gateway: GatewayState = request.app.state.gateway
    return gateway


def _options_of(job: NewJob) -> RequestOptions:
    options = {
        "priority": job.priority,
        "delay": job.delay_seconds,
        "expires": job.expires_seconds,
        "dedupe_key": job.dedupe_key,
        "campaign": job.campaign,
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
