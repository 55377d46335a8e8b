"""``floodgate doctor``."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Final

import typer
from pydantic import SecretStr

from floodgate.broker.amqp import queue_admin, topology
from floodgate.broker.amqp.connections import Connections
from floodgate.broker.errors import FloodgateError, SpoolError, StateUnavailableError
from floodgate.broker.settings.model import Settings, load_settings
from floodgate.broker.state.stores import open_store, state_file
from floodgate.broker.uploads.spool import Spool
from floodgate.commands.options import EXIT_NO, AsJson, say
from floodgate.letters.paging import ago
from floodgate.overview import replicas

ANSWER_SECONDS: Final = 10.0
# A job's times are compared with the clock of whichever machine handles it.
CLOCK_SECONDS: Final = 5.0
SHOWN_FAULTS: Final = 3
# For how long it is worth knowing that the state store has lost writes.
LOST_SHOWN: Final = timedelta(days=1)
_JOB: Final = "doctor"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. If it failed, the text says what to do."""

    subject: str
    sound: bool
    text: str


def doctor(as_json: AsJson = False) -> None:
    """Check the settings and the services they point to: RabbitMQ and its cluster, state store, spool, Bot API, clock.

    Prints one line per check, with the remedy if it failed, and exits with 1 if any check failed. Changes nothing,
    except that it writes and removes a file of one byte in the spool.

    Example: floodgate doctor
    """
    findings = []
    for finding in examine():
        findings.append(finding)
        if not as_json:
            say(f"{'ok  ' if finding.sound else 'FAIL'} {finding.subject}: {finding.text}")
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings]))
    if not all(finding.sound for finding in findings):
        raise typer.Exit(EXIT_NO)


def examine() -> Iterator[Finding]:
    """Yield the finding of each check. Each check is bounded by its time-outs."""
    try:
        settings = load_settings()
        bots = settings.require_bots()
    except FloodgateError as error:
        yield Finding("settings", False, str(error))
        return
    yield Finding("settings", True, f"{len(bots)} bot{'s' * (len(bots) > 1)} ({', '.join(sorted(bots))})")
    with Connections(settings, "doctor") as connections:
        yield _look("RabbitMQ", lambda: _rabbitmq(connections))
        yield _look("queues", lambda: _queues(settings, connections))
    if settings.rabbitmq_management_urls:
        yield _look("cluster", lambda: _cluster(settings))
    elif len(settings.rabbitmq_urls) > 1:
        yield Finding("cluster", True, "not checked, because FLOODGATE_RABBITMQ_MANAGEMENT_URL is not set")
    yield _look("state store", lambda: _state(settings))
    yield _look("spool", lambda: _spool(settings))
    date = None
    for bot, token in bots.items():
        finding, date = asyncio.run(_bot_api(settings.telegram_api_url, settings.telegram_proxy, bot, token))
        yield finding
    if date is not None:
        yield _clock(parsedate_to_datetime(date).timestamp() - time.time())


def _look(subject: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(subject, True, check())
    except FloodgateError as error:
        return Finding(subject, False, str(error))


def _rabbitmq(connections: Connections) -> str:
    connections.connect()
    return f"version {'.'.join(map(str, connections.server_version))}"


def _cluster(settings: Settings) -> str:
    wanted = topology.pipeline_of(settings, settings.require_bots())
    state = replicas.read_cluster(settings).of({queue.name for queue in wanted.queues})
    if faults := replicas.faults(state):
        raise FloodgateError(" ".join(faults))
    return str(state)


def _queues(settings: Settings, connections: Connections) -> str:
    wanted = topology.pipeline_of(settings, settings.require_bots())
    faults = queue_admin.verify(connections, wanted)
    if faults:
        shown = " ".join(faults[:SHOWN_FAULTS])
        rest = (
            f" And {len(faults) - SHOWN_FAULTS} more: run floodgate topology verify."
            if len(faults) > SHOWN_FAULTS
            else ""
        )
        raise FloodgateError(f"{shown}{rest} Run `floodgate topology apply` to create what is missing.")
    return f"{len(wanted.queues)} queues match the settings"


def _state(settings: Settings) -> str:
    path = state_file(settings)
    if path is not None and not path.exists():
        return _can_be_created(path, "state file", StateUnavailableError)
    with contextlib.closing(open_store(settings)) as store:
        started = time.monotonic()
        for bot in settings.tokens:
            store.lookup(bot, _JOB)
        answer = f"answers within {(time.monotonic() - started) * 1000:.0f} ms"
        lost = [age for bot in settings.tokens if (age := store.snapshot(bot).rolled_back) is not None]
    return answer if not lost or min(lost) > LOST_SHOWN else f"{answer}; lost its last writes {ago(min(lost))} ago"


def _spool(settings: Settings) -> str:
    spool = Spool(settings.spool_url)
    if spool.missing_folder is not None:
        return _can_be_created(spool.missing_folder, "spool", SpoolError)
    bot = next(iter(settings.tokens))
    kept = spool.put(bot, _JOB, 0, _JOB, _JOB, io.BytesIO(b"."))
    with spool.open(bot, _JOB, kept) as upload:
        upload.read()
    spool.remove(bot, _JOB)
    return "files can be written, read and removed"


def _can_be_created(path: Path, what: str, fault: type[FloodgateError]) -> str:
    """Check that a missing file or folder can be created, without creating it."""
    folder = next(each for each in path.absolute().parents if each.exists())
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise fault(f"The {what} {path} cannot be created: {error.strerror}. Make {folder} writable.") from None
    return f"{path} does not exist yet, and can be created"


async def _bot_api(url: str, proxy: SecretStr | None, bot: str, token: SecretStr) -> tuple[Finding, str | None]:
    """Call getMe; return the finding and the server's date."""
    import aiohttp  # a fifth of the time that all other commands would take to start

    from floodgate.broker.process.telegram_session import TelegramSession

    subject = f"Bot API as {bot!r}"
    timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
    try:
        async with (
            TelegramSession(1, proxy, timeout=timeout) as session,
            await session.request("GET", f"{url}/bot{token.get_secret_value()}/getMe") as response,
        ):
            answer, date = await response.json(content_type=None), response.headers.get("Date")
    except (aiohttp.ClientError, OSError, ValueError) as error:
        # The error's text may contain the URL, and with it the token.
        why = f"no answer ({type(error).__name__}): check FLOODGATE_TELEGRAM_API_URL, the network and the proxy"
        return Finding(subject, False, why), None
    return _identity(subject, answer), date


def _identity(subject: str, answer: Any) -> Finding:
    fields = answer if isinstance(answer, dict) else {}
    if fields.get("ok") is True and isinstance(me := fields.get("result"), dict):
        return Finding(subject, True, f"@{me.get('username')}")
    said = f"{fields.get('error_code')} {fields.get('description')}"
    return Finding(subject, False, f"refused ({said}): renew the token with @BotFather and set it")


def _clock(behind_seconds: float) -> Finding:
    if abs(behind_seconds) <= CLOCK_SECONDS:
        return Finding("clock", True, "agrees with the Bot API's")
    way = "behind" if behind_seconds > 0 else "ahead of"
    return Finding("clock", False, f"{abs(behind_seconds):.0f} s {way} the Bot API's: synchronize it (NTP)")
