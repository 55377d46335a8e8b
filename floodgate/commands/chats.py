"""``floodgate chats``."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Annotated

import typer

from floodgate.broker.admission.contract import Admission, UnreachableChat
from floodgate.broker.settings.model import Settings, load_settings
from floodgate.broker.state.stores import open_store
from floodgate.commands.options import EXIT_NO, AnyBot, AsJson, open_to_read, say
from floodgate.letters import reading
from floodgate.letters.criteria import chat_of, harmless
from floodgate.letters.paging import ago, each_once
from floodgate.letters.view import print_table

app = typer.Typer(help="Manage unreachable chats.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Manage unreachable chats."""


@app.command()
def unreachable(
    bot: AnyBot = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000_000, help="Maximum number of chats per bot.")] = 10_000,
    as_json: AsJson = False,
) -> None:
    """List the chats that Telegram reported as unreachable, latest first, with Telegram's error.

    Jobs for them fail without a call to Telegram until an update comes from the chat, the chat is cleared, or
    FLOODGATE_UNREACHABLE_SECONDS have passed.

    Example: floodgate chats unreachable --json
    """
    with _stores(bot, open_to_read) as (store, bots):
        found = {name: each_once(partial(store.unreachable, name), lambda held: held.chat, limit) for name in bots}
    if as_json:
        print(json.dumps([_as_data(name, chat) for name, chats in found.items() for chat in chats]))
        return
    rows = [
        (name, chat.chat, f"{ago(chat.age)} ago", harmless(chat.why.encode()))
        for name, chats in found.items()
        for chat in chats
    ]
    if rows:
        print_table(("bot", "chat", "refused", "what Telegram said"), rows, whole=("chat",))
    else:
        say("No chats are marked unreachable.")


@app.command()
def clear(
    chat: Annotated[
        str, typer.Argument(help="Chat id or @name. Write `--` before an id that begins with a minus sign.")
    ],
    bot: AnyBot = None,
) -> None:
    """Mark a chat reachable, so that its jobs are sent again. Exits with 1 if it was not marked unreachable.

    Example: floodgate chats clear --bot default -- -1001234567890
    """
    key = chat_of(chat)
    assert key is not None
    with _stores(bot) as (store, bots):
        held = [name for name in bots if store.heard_from(name, key)]
    if not held:
        say(f"Chat {key} was not marked unreachable.")
        raise typer.Exit(EXIT_NO)
    say(f"Chat {key} is reachable again for {', '.join(held)}.")


@contextlib.contextmanager
def _stores(
    bot: str | None, opened: Callable[[Settings], Admission] = open_store
) -> Iterator[tuple[Admission, list[str]]]:
    settings = load_settings()
    bots = reading.bots(settings, bot)
    with contextlib.closing(opened(settings)) as store:
        yield store, bots


def _as_data(bot: str, chat: UnreachableChat) -> dict[str, object]:
    return {"bot": bot, "chat": chat.chat, "why": chat.why, "seconds_ago": round(chat.age.total_seconds())}
