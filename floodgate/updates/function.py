"""``@on_update``: a plain function that handles updates, for bots without an Application.

from floodgate import AsyncClient, Update, on_update

@on_update
async def answer(update: Update, client: AsyncClient) -> None:
    message = update.body.get("message")
    if message and "text" in message:
        await client.send_message(chat_id=message["chat"]["id"], text=message["text"])
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from floodgate.actors.updates.run import HandlerRun
from floodgate.broker.amqp.connections import Connections
from floodgate.broker.errors import SettingsError
from floodgate.broker.messages.update import Update
from floodgate.broker.settings.model import Settings
from floodgate.producer.async_client import AsyncClient

HandleUpdate = Callable[[Update, AsyncClient], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class OnUpdate:
    """A function marked with ``@on_update``. Calling it calls the function."""

    function: HandleUpdate

    def __call__(self, update: Update, client: AsyncClient) -> Awaitable[None]:
        return self.function(update, client)


def on_update(function: HandleUpdate) -> OnUpdate:
    """Mark an async function of an update and a client as a handler for ``floodgate worker --updates``.

    The client belongs to the process and to the update's bot. Jobs that the function enqueues with it are sent within
    the limits; ``await client.result(job)`` returns Telegram's result. The function is called again for the same update
    if it raises or if the worker dies: a ``dedupe_key`` made from ``update.message_id`` prevents a second send.

    Raises:
        SettingsError: The function is not async, or takes other arguments.
    """
    name = getattr(function, "__qualname__", repr(function))
    if not inspect.iscoroutinefunction(function):
        raise SettingsError(
            f"@on_update needs an async function and {name} is not async: write `async def`, and "
            "`await asyncio.to_thread(…)` around blocking calls."
        )
    try:
        inspect.signature(function).bind(None, None)
    except TypeError:
        raise SettingsError(f"@on_update calls {name}(update, client): let it take these two arguments.") from None
    return OnUpdate(function)


class FunctionHandler:
    """A ``floodgate.actors.updates.handler.Handler`` that calls a function."""

    def __init__(self, name: str, function: OnUpdate, settings: Settings, connections: Connections) -> None:
        self._name = name
        self._function = function
        self._clients = {bot: AsyncClient(settings, bot=bot, connections=connections) for bot in settings.tokens}

    @property
    def name(self) -> str:
        """The path of the function, for the log."""
        return self._name

    async def open(self) -> None:
        """Do nothing: clients open at first use."""

    async def close(self) -> None:
        """Close the clients."""
        for client in self._clients.values():
            await client.close()

    async def handle(self, run: HandlerRun) -> None:
        """Call the function with the update and its bot's client."""
        await self._function(run.update, self._clients[run.update.bot])

    async def moved_here(self, bot: str, partition: int, partitions: int) -> None:
        """Do nothing: a function manages its own state."""
