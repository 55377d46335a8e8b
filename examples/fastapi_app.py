"""A web service that sends messages from an event loop.

FLOODGATE_RABBITMQ_URL=… uvicorn --app-dir examples fastapi_app:app
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException, Request
from pydantic import BaseModel

from floodgate import AsyncClient, InvalidParamsError, NotSettledError, RabbitMQError


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with AsyncClient() as client:
        app.state.floodgate = client
        yield


app = FastAPI(lifespan=lifespan)


class Notice(BaseModel):
    chat_id: int
    text: str


@app.post("/notices", status_code=202)
async def notify(notice: Notice, request: Request) -> dict[str, str]:
    """Enqueue a message. Returns once RabbitMQ has it on disk."""
    try:
        job = await request.app.state.floodgate.send_message(notice.chat_id, notice.text)
    except InvalidParamsError as error:
        raise HTTPException(422, str(error)) from None
    except RabbitMQError as error:
        raise HTTPException(503, str(error)) from None
    return {"job": job.id}


@app.get("/notices/{job_id}")
async def outcome(job_id: str, request: Request) -> dict[str, int]:
    """Return Telegram's message id once the message has been sent."""
    try:
        message = await request.app.state.floodgate.result(job_id, timeout=10)
    except NotSettledError:
        raise HTTPException(404, "not sent yet") from None
    return {"message_id": message["message_id"]}
