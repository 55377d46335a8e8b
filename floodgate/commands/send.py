"""``floodgate send``."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from floodgate.broker.errors import InvalidParamsError
from floodgate.broker.messages.job import Priority
from floodgate.commands.options import Bot, say
from floodgate.letters.criteria import moment


def send(
    chat: Annotated[str | None, typer.Option(help="Chat id, or @name of a public chat.")] = None,
    text: Annotated[str | None, typer.Option(help="Text of the message.")] = None,
    method: Annotated[str, typer.Option(help="Bot API method.")] = "sendMessage",
    params: Annotated[str, typer.Option(help="More parameters of the method, as a JSON object.")] = "{}",
    bot: Bot = None,
    priority: Annotated[
        Priority, typer.Option(help="Interactive jobs are sent before bulk ones.")
    ] = Priority.INTERACTIVE,
    delay: Annotated[float, typer.Option(help="Earliest time to send, in seconds from now.", min=0)] = 0,
    at: Annotated[
        str | None, typer.Option(help="Earliest time to send: `2h` from now (s, m, h, d, w), or 2026-11-20T10:00.")
    ] = None,
    expires: Annotated[str | None, typer.Option(help="Latest time to send, in the same form.")] = None,
    dedupe_key: Annotated[str | None, typer.Option(help="Of a bot's jobs with the same key, only one is sent.")] = None,
    campaign: Annotated[str | None, typer.Option(help="Label by which to find, or cancel, related jobs.")] = None,
    wait: Annotated[
        float, typer.Option(help="Wait up to this many seconds for Telegram's answer, and print it.", min=0)
    ] = 0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the accepted job as JSON; with --wait, with the result.")
    ] = False,
) -> None:
    """Enqueue one call. Returns when RabbitMQ has written it to disk, or with --wait when Telegram has answered.

    Example: floodgate send --chat 42 --text "It works" --wait 10
    """
    from floodgate.broker.settings.model import load_settings
    from floodgate.producer import Client

    settings = load_settings()
    settings.require_bots()
    fields = _parameters(chat, text, params)
    now = datetime.now(UTC)
    times = {"at": moment(at, now, ahead=True), "expires": moment(expires, now, ahead=True), "delay": delay or None}
    options = {"bot": bot, "priority": priority, "dedupe_key": dedupe_key, "campaign": campaign, **times}
    with Client(settings) as client:
        job = client.call(method, **fields, **options)
        if not as_json:
            say(f"Accepted: job {job.id}, {job.method} to {job.chat or 'no chat'}.")
        answer = {"result": client.result(job, timeout=wait)} if wait else {}
    if as_json:
        print(json.dumps(job.model_dump(mode="json") | answer))
    elif answer:
        say(f"Telegram answered: {json.dumps(answer['result'], ensure_ascii=False)}")


def _parameters(chat: str | None, text: str | None, params: str) -> dict[str, Any]:
    try:
        fields = json.loads(params)
    except ValueError as error:
        raise InvalidParamsError(f'--params is not JSON ({error}): write it as in {{"parse_mode": "HTML"}}.') from None
    if not isinstance(fields, dict):
        raise InvalidParamsError('--params is not a JSON object: write it as in {"parse_mode": "HTML"}.')
    given = {"chat_id": chat, "text": text}
    return fields | {name: value for name, value in given.items() if value is not None}
