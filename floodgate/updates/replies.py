"""The request object of an Application's bot, which sends handlers' calls through the pipeline.

    queued (sends, edits, actions)   become an interactive job, and return its result as Telegram's own JSON
    passed (reads, answers)          go to Telegram at once, without limits: a button's answer must not wait for sends
    refused (close, logOut)          are refused, as by the gateway

The table is the gateway's (:mod:`floodgate.producer.gateway.routes`). The library gets the answer that Telegram would
have given, and turns a result into its objects and a refusal into its errors. Other outcomes are raised as the
library's own errors: ``NetworkError`` if nothing was accepted, ``TimedOut`` if the message is safe but has no result
yet.

Handlers are called again for an update when they fail or when their worker dies. To send each message only once, a
job's id is derived from the update, the call, and the call's ordinal among equal calls: the same call, made again for
the same update, is the same job. It is sent once, and the second call returns the first one's result.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import IO, Any, Final
from urllib.parse import quote

from pydantic import SecretStr
from telegram.error import NetworkError, TimedOut
from telegram.request import BaseRequest, RequestData

from floodgate.actors.request import AiohttpRequest
from floodgate.actors.updates.run import current_run
from floodgate.broker.admission.contract import Record, Standing
from floodgate.broker.errors import (
    ClosedError,
    ConfirmTimeoutError,
    DeadLetteredError,
    JobError,
    NotSettledError,
    RabbitMQError,
    SpoolError,
    StateError,
    UnknownMethodError,
)
from floodgate.broker.messages.job import Job, Priority, unix_ms
from floodgate.broker.messages.method_table import Charge
from floodgate.broker.settings.model import Settings
from floodgate.producer.async_client import AsyncClient
from floodgate.producer.core import Composer
from floodgate.producer.gateway.routes import MethodRoute, Route, route_of
from floodgate.producer.telegram_answer import answer_to, as_answered, error_body
from floodgate.producer.uploads import Attachment, UploadStore, quotable
from floodgate.updates.stand_ins import stand_in

logger = logging.getLogger("floodgate.updates")

# Slightly more concurrent reads and answers than a worker has handlers by default.
CONNECTIONS: Final = 256

StatusAndBody = tuple[int, dict[str, Any]]
FormFile = tuple[str, bytes | IO[bytes], str]  # name, content, type: as the library passes it


@dataclass(frozen=True, slots=True)
class BotApiRoots:
    """Root URLs of the Bot API, a bot's own or the configured ones. They contain the token: do not log them."""

    calls: SecretStr
    files: SecretStr

    @classmethod
    def configured(cls, settings: Settings, bot: str) -> BotApiRoots:
        """Return the roots that the settings give a bot."""
        root, token = settings.telegram_api_url, settings.token(bot).get_secret_value()
        return cls(SecretStr(f"{root}/bot{token}"), SecretStr(f"{root}/file/bot{token}"))


class PipelineRequest(AiohttpRequest):
    """A python-telegram-bot request for one bot that turns sends into jobs. Belongs to the loop that initialises it.

    Args:
        settings: The settings of the process.
        bot: The bot's name.
        client: Enqueues jobs and waits for their results; it is closed with this request.
        theirs: The root URLs that the library's bot uses.
        before_call: Awaited before each call.
    """

    __slots__ = ("_before_call", "_bot", "_client", "_composer", "_ours", "_settings", "_theirs", "_upload_store")

    def __init__(
        self,
        settings: Settings,
        bot: str,
        client: AsyncClient,
        theirs: BotApiRoots,
        before_call: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        super().__init__(connections=CONNECTIONS, proxy=settings.telegram_proxy)
        self._settings = settings
        self._before_call = before_call
        self._bot = bot
        self._client = client
        self._composer = Composer(settings, bot)
        self._upload_store = UploadStore(settings.spool_url)
        self._theirs = theirs
        self._ours = BotApiRoots.configured(settings, bot)

    @property
    def client(self) -> AsyncClient:
        """The client of the bot."""
        return self._client

    async def shutdown(self) -> None:
        """Close the client and the connections to the Bot API."""
        await self._client.close()
        await super().shutdown()

    async def do_request(
        self,
        url: str,
        method: str,
        request_data: RequestData | None = None,
        read_timeout: Any = BaseRequest.DEFAULT_NONE,
        write_timeout: Any = BaseRequest.DEFAULT_NONE,
        connect_timeout: Any = BaseRequest.DEFAULT_NONE,
        pool_timeout: Any = BaseRequest.DEFAULT_NONE,
    ) -> tuple[int, bytes]:
        """Make a call, as the base class does; a queued call returns once its job has ended.

        The time-outs apply to calls that are passed through.

        Raises:
            TimedOut: A job is safe, or may be, but has not ended in time; or a passed call took too long.
            NetworkError: RabbitMQ accepted nothing; or a passed call failed.
        """
        await self._prepare()
        called = self._called(url)
        row = self._route(called)
        if row is not None and row.route is Route.QUEUED:
            return _written(await self._send(called, request_data))
        if row is not None and row.route is Route.REFUSED:
            return _written((403, error_body(403, f"Forbidden: {row.method} is not for a handler: {row.why}")))
        timeouts = (read_timeout, write_timeout, connect_timeout, pool_timeout)
        return await super().do_request(self._configured(url), method, request_data, *timeouts)

    async def _prepare(self) -> None:
        if self._before_call is not None:
            try:
                await self._before_call()
            except StateError as error:
                raise NetworkError(f"Nothing was sent. {error}") from error

    def _route(self, called: str) -> MethodRoute | None:
        """Return a method's route; None for a download, and for a name that no method has, which Telegram refuses."""
        try:
            return route_of(self._settings.method(called))
        except UnknownMethodError:
            return None

    def _called(self, url: str) -> str:
        """Return the Bot API method that a URL calls; empty if it calls none."""
        before, _, name = url.partition("?")[0].rpartition("/")
        return name if before == self._theirs.calls.get_secret_value() else ""

    def _configured(self, url: str) -> str:
        """Return the URL at the configured Bot API. The library escapes the token's colon in some URLs."""
        for theirs, ours in ((self._theirs.files, self._ours.files), (self._theirs.calls, self._ours.calls)):
            root = theirs.get_secret_value()
            for form in (f"{root}/", f"{_escaped(root)}/"):
                if url.startswith(form):
                    return f"{ours.get_secret_value()}/{url.removeprefix(form)}"
        return url

    async def _send(self, method: str, data: RequestData | None) -> StatusAndBody:
        params = dict(data.parameters) if data is not None else {}
        files: Mapping[str, FormFile] = data.multipart_data if data is not None else {}
        try:
            job = self._composer.unchecked(
                method, params, {"priority": Priority.INTERACTIVE}, job_id=_job_id(self._bot, method, params, files)
            )
            known = await self._known(job)
            if known is not None:
                return self._answer(job, known)
            await self._client.enqueue(await self._keep(job, files))
        except JobError as error:
            return 400, error_body(400, f"Bad Request: {error}")
        except ConfirmTimeoutError as error:
            raise TimedOut(f"{error} Job {job.id} may be accepted.") from error
        except (RabbitMQError, SpoolError, ClosedError) as error:
            raise NetworkError(f"Nothing was accepted. {error}") from error
        return await self._result(job)

    async def _known(self, job: Job) -> Record | None:
        """Return how the same call of an earlier attempt ended, without a query on the first attempt."""
        run = current_run()
        if run is None or run.attempt == 1:
            return None
        record = await self._record(job)
        return record if record is not None and record.standing in (Standing.SENT, Standing.DEAD) else None

    async def _result(self, job: Job) -> StatusAndBody:
        if self._settings.updates.replies == "enqueued":
            instead = stand_in(job.method, job.params)
            if instead is not None:
                return 200, {"ok": True, "result": instead}
        seconds = self._settings.updates.reply_seconds
        typing = self._settings.charge_of(job) is Charge.TYPING
        if typing and (worth := job.worth(unix_ms())) is not None:
            seconds = max(0.0, min(seconds, worth.total_seconds()))
        try:
            result = await self._client.result(job, timeout=seconds)
        except DeadLetteredError:
            pass
        except (NotSettledError, StateError, ClosedError) as error:
            if typing:  # if it has not been sent by now, it will be shed
                return 200, {"ok": True, "result": True}
            raise TimedOut(
                f"Job {job.id} is safe and will be sent; there is no result within {seconds:g} s. Do not send it again."
            ) from error
        else:
            if result is not True:
                return self._answer(job, Record(Standing.SENT, result=result))
        # An edit that changed nothing counts as sent, and the record also has Telegram's error.
        return self._answer(job, await self._record(job) or Record(Standing.SENT, result=True))

    def _answer(self, job: Job, record: Record) -> StatusAndBody:
        return answer_to(job.id, as_answered(record, self._settings.charge_of(job)))

    async def _record(self, job: Job) -> Record | None:
        try:
            return await self._client.status(job)
        except StateError as error:
            logger.info("job %s: %s", job.id, error)
            return None

    async def _keep(self, job: Job, files: Mapping[str, FormFile]) -> Job:
        if not files:
            return job
        attachments = [
            Attachment(part, part, quotable(filename), content) for part, (filename, content, _) in files.items()
        ]
        return await asyncio.to_thread(self._upload_store.keep, job, attachments)


def _job_id(bot: str, method: str, params: Mapping[str, Any], files: Mapping[str, FormFile]) -> str | None:
    """Derive a job id that the same call gets in every attempt at the same update.

    None, which means a new id each time, for calls outside an update and for uploads that can be read only once.
    """
    run = current_run()
    if run is None or not all(isinstance(content, bytes) for _, content, _ in files.values()):
        return None
    call = hashlib.blake2b(_call_text(method, params, files).encode(errors="surrogatepass"), digest_size=16).hexdigest()
    run.calls[call] += 1
    whole = f"{bot}\x00{run.update.update_id}\x00{run.arrived_ms}\x00{call}\x00{run.calls[call]}"
    return f"reply-{hashlib.blake2b(whole.encode(), digest_size=16).hexdigest()}"


def _call_text(method: str, params: Mapping[str, Any], files: Mapping[str, FormFile]) -> str:
    """Return a call as text, with uploads represented by their content, as the library names them at random."""
    text = json.dumps([method, params], sort_keys=True, default=str)
    for part, (filename, content, _) in files.items():
        assert isinstance(content, bytes)
        text = text.replace(f"attach://{part}", "")
        text += f"\x00{filename}\x00{hashlib.blake2b(content, digest_size=16).hexdigest()}"
    return text


def _escaped(url: str) -> str:
    scheme, _, path = url.partition("://")
    host, slash, path = path.partition("/")
    return f"{scheme}://{host}{slash}{quote(path)}"


def _written(answer: StatusAndBody) -> tuple[int, bytes]:
    status, body = answer
    return status, json.dumps(body).encode()
