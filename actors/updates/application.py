"""A python-telegram-bot Application as the handler of a worker's updates.

It is initialised and started as ``run_polling`` would, but polls nothing: each update is given to ``process_update``,
and what its handlers send goes through the request that its bot is given. Handlers, filters, groups, conversations,
persistence, ``post_init`` and the rest are the user's own and stay as they are.

Errors. The library hands what a handler raises to the Application's error handlers and goes on. Here an update that
failed is tried again first. So one error handler of ours stands before the user's: it notes the error and, unless the
attempt is the last, keeps it from the others. They are called once for an update, when no attempt is left; one that
raises ``ApplicationHandlerStop`` has dealt with the error, and the update is not dead-lettered. Errors of what is no
update, such as timers, go to them as ever.

Moving. Chats move between workers when one joins or leaves. What the Application holds in memory does not: chat and
user data come from the persistence anew if it can refresh them, and so do the conversations of a partition that moved
(:mod:`floodgate.actors.updates.conversations`). That needs a persistence which all workers share (docs/updates.md).

The request is put into a private field of the library's bot, which has no other way in once it is built. A test holds
the library to it, and so does :func:`_give_request`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any, Final

from telegram import Update as TelegramUpdate
from telegram.error import InvalidToken, NetworkError, TelegramError
from telegram.ext import Application, ApplicationHandlerStop, DictPersistence, ExtBot, PicklePersistence
from telegram.request import BaseRequest

from floodgate.actors.updates.conversations import Conversations
from floodgate.actors.updates.handler import UnreadableUpdateError
from floodgate.actors.updates.persistence_flusher import PersistenceFlusher
from floodgate.actors.updates.run import HandlerRun, current_run
from floodgate.broker.errors import NotSentError, SettingsError

logger = logging.getLogger("floodgate.updates")

# The library asks Telegram who the bot is before it can handle a command.
INTRODUCTION_SECONDS: Final = 60.0
RETRY_SECONDS: Final = 1.0

# These hold everything in memory from the start on, and write all of it.
_OF_ONE_PROCESS: Final = (PicklePersistence, DictPersistence)

AnyApplication = Application[Any, Any, Any, Any, Any, Any]


class ApplicationHandler:
    """``handler.Handler`` for an Application."""

    def __init__(self, name: str, application: AnyApplication, request: BaseRequest) -> None:
        self._name = name
        self._application = application
        self._flusher = PersistenceFlusher(application)
        self._conversations = Conversations(application)
        self._told: set[str] = set()  # types of updates that no handler took, told once each
        _give_request(application.bot, request)
        if isinstance(application.bot, ExtBot) and application.bot.rate_limiter is not None:
            logger.warning(
                "%s has a rate limiter of its own, which makes replies late: Floodgate keeps the limits.", name
            )

    @property
    def name(self) -> str:
        return self._name

    async def open(self) -> None:
        application = self._application
        await self._introduce()
        self._conversations.open()
        await application.initialize()
        self._stand_first()
        if application.post_init is not None:
            await application.post_init(application)
        await application.start()
        if application.persistence is None:
            logger.info("%s has no persistence: what it keeps of chats ends with this process", self._name)

    async def close(self) -> None:
        application = self._application
        if application.running:
            await application.stop()
            if application.post_stop is not None:
                await application.post_stop(application)
        await application.shutdown()
        if application.post_shutdown is not None:
            await application.post_shutdown(application)

    async def handle(self, run: HandlerRun) -> None:
        update = self._read(run)
        await self._conversations.prepare(update)
        await self._application.process_update(update)
        run.over = True
        if run.error is not None:
            raise run.error
        await self._flusher.flush()

    async def moved_here(self, bot: str, partition: int, partitions: int) -> None:
        application = self._application
        if application.persistence is None or isinstance(application.persistence, _OF_ONE_PROCESS):
            logger.warning(
                "what %s kept in memory of the chats of updates.%s.%02d stayed with their worker: give the Application "
                "a persistence that all workers share (docs/updates.md)",
                self._name,
                bot,
                partition,
            )
            return
        await self._conversations.renew(partition, partitions)

    async def _introduce(self) -> None:
        """Wait for Telegram, for a while: without it the Application cannot start.

        Raises:
            SettingsError: Telegram refuses the token.
            NotSentError: Telegram cannot be reached.
        """
        deadline = time.monotonic() + INTRODUCTION_SECONDS
        while True:
            try:
                await self._application.bot.initialize()
                return
            except InvalidToken:  # its text holds the token
                raise SettingsError(
                    f"Telegram refuses the token of {self._name}: correct FLOODGATE_BOT_TOKEN."
                ) from None
            except NetworkError as error:
                if time.monotonic() > deadline:
                    raise NotSentError(
                        f"Telegram cannot be reached ({error}), and {self._name} cannot start without. See that "
                        "FLOODGATE_TELEGRAM_API_URL is right and the network up."
                    ) from None
                logger.warning("%s waits for Telegram: %s", self._name, error)
            await asyncio.sleep(RETRY_SECONDS)

    def _read(self, run: HandlerRun) -> TelegramUpdate:
        try:
            update = TelegramUpdate.de_json(run.update.body, self._application.bot)
        except (TelegramError, KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise UnreadableUpdateError(f"{type(error).__name__}: {error}") from error
        if unknown := update.api_kwargs.keys() - self._told:
            self._told |= unknown
            logger.warning("updates of type %s are unknown to python-telegram-bot, and passed over", ", ".join(unknown))
        return update

    def _stand_first(self) -> None:
        """Put our error handlers around the user's."""
        theirs = dict(self._application.error_handlers)
        self._application.error_handlers.clear()
        self._application.add_error_handler(self._first)
        for callback, block in theirs.items():
            self._application.add_error_handler(callback, block=block)
        self._application.add_error_handler(self._last)

    async def _first(self, _update: object, context: Any) -> None:
        run = current_run()
        if run is None or run.over:
            return
        if not run.last:
            run.error = context.error
            raise ApplicationHandlerStop

    async def _last(self, update: object, context: Any) -> None:
        """None of the user's has stopped it."""
        run = current_run()
        if run is not None and not run.over:
            run.error = context.error
        elif len(self._application.error_handlers) == 2:  # ours alone: nobody would hear of it
            logger.error("%s failed outside of an update's handling", self._name, exc_info=context.error)


def _give_request(bot: Any, request: BaseRequest) -> None:
    held = getattr(bot, "_request", None)
    if not (isinstance(held, tuple) and len(held) == 2):
        raise SettingsError(
            "This python-telegram-bot does not let its requests be replaced: install telegram-floodgate[worker]."
        )
    bot._request = (request, request)
