"""``floodgate send``."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich.console import Console

from floodgate.broker.errors import InvalidParamsError
from floodgate.broker.messages.job import Priority
from floodgate.commands.options import Bot


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
    as_json: Annotated[bool, typer.Option("--json", help="Print the accepted job as JSON.")] = False,
) -> None:
    """Enqueue one call. Returns when RabbitMQ has written it to disk.

    Example: floodgate send --chat 42 --text "It works"
    """
    from floodgate.broker.settings.model import load_settings
    from floodgate.producer import Client

    settings = load_settings()
    settings.require_bots()
    fields = _parameters(chat, text, params)
    with Client(settings) as client:
        job = client.call(method, **fields, bot=bot, priority=priority, delay=delay or None)
    if as_json:
        print(job.model_dump_json())
    else:
        Console(highlight=False).print(f"Accepted: job {job.id}, {job.method} to {job.chat or 'no chat'}.")


def _parameters(chat: str | None, text: str | None, params: str) -> dict[str, Any]:
    try:
        fields = json.loads(params)
    except ValueError as error:
        raise InvalidParamsError(f'--params is not JSON ({error}): write it as in {{"parse_mode": "HTML"}}.') from None
    if not isinstance(fields, dict):
        raise InvalidParamsError('--params is not a JSON object: write it as in {"parse_mode": "HTML"}.')
    given = {"chat_id": chat, "text": text}
    return fields | {name: value for name, value in given.items() if value is not None}
