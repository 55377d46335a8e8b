"""A python-telegram-bot Application as the handler of a worker's updates.

The Application is initialised and started as ``run_polling`` would do it, but without polling: each update is passed to
``process_update``, and its handlers send through the request object that replaces the bot's own. Handlers, filters,
groups, conversations, persistence, ``post_init`` and everything else work as usual.

Errors. The library passes an exception to the Application's error handlers and goes on. Floodgate retries the update
first. So its own error handler runs before the user's: it records the error and, unless this is the last attempt, stops
the others from running. They are called once per update, when no attempt is left. If one raises
``ApplicationHandlerStop``, the error counts as dealt with, and the update is not dead-lettered. Errors outside of
updates, such as in timers, reach them as usual.

Moving. Chats move between workers when a worker joins or leaves, but the Application's data in memory does not. Chat
and user data are read from the persistence again if it can refresh them, and so are the conversations of a partition
that moved (:mod:`floodgate.actors.updates.conversations`). This needs a persistence that all workers share
(docs/updates.md).

The request is set in a private attribute of the library's bot, since a bot that is already built offers no other way. A
test checks that the library still has it, and so does :func:`_give_request`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Any, Final

from telegram import Update as TelegramUpdate
from telegram.error import InvalidToken, NetworkError, TelegramError
from telegram.ext import Application, ApplicationHandlerStop, DictPersistence, ExtBot, PicklePersistence
from telegram.request import BaseRequest

from floodgate.actors.updates.callback_data import SharedCallbackData
from floodgate.actors.updates.conversations import Conversations
from floodgate.actors.updates.handled_types import missing_types
from floodgate.actors.updates.handler import UnreadableUpdateError
from floodgate.actors.updates.persistence_flusher import PersistenceFlusher
from floodgate.actors.updates.run import HandlerRun, current_run
from floodgate.broker.errors import HandlersStoppedError, NotSentError, SettingsError

logger = logging.getLogger("floodgate.updates")

# The library must call getMe before it can handle commands.
INTRODUCTION_SECONDS: Final = 60.0
RETRY_SECONDS: Final = 1.0

# These load everything into memory at the start, and write all of it.
_OF_ONE_PROCESS: Final = (PicklePersistence, DictPersistence)

AnyApplication = Application[Any, Any, Any, Any, Any, Any]


class ApplicationHandler:
    """The :class:`~floodgate.actors.updates.handler.Handler` for an Application.

    Args:
        allowed_updates: the types that the receiver asks Telegram for.
        callback_data: the data of buttons, if the Application uses ``arbitrary_callback_data``.
    """

    def __init__(
        self,
        name: str,
        application: AnyApplication,
        request: BaseRequest,
        allowed_updates: Sequence[str] = (),
        callback_data: SharedCallbackData | None = None,
    ) -> None:
        self._name = name
        self._application = application
        self._allowed_updates = allowed_updates
        self._callback_data = callback_data
        self._flusher = PersistenceFlusher(application)
        self._conversations = Conversations(application)
        self._logged: set[str] = set()  # types of updates unknown to the library, each logged once
        _give_request(application.bot, request)
        if isinstance(application.bot, ExtBot) and application.bot.rate_limiter is not None:
            logger.warning(
                "%s has its own rate limiter, which delays replies: remove it, since Floodgate keeps the limits.", name
            )

    @property
    def name(self) -> str:
        """The target that the Application was loaded from."""
        return self._name

    async def open(self) -> None:
        """Initialise and start the Application.

        Raises:
            SettingsError: Telegram refuses the token.
            NotSentError: Telegram cannot be reached.
            HandlersStoppedError: ``post_init`` called ``stop_running()``.
        """
        application = self._application
        await self._introduce()
        self._conversations.open()
        await application.initialize()
        self._stand_first()
        if application.post_init is not None:
            await application.post_init(application)
        if application._Application__stop_running_marker.is_set():  # type: ignore[attr-defined]
            raise HandlersStoppedError(self._name, "it called stop_running() in post_init")
        await application.start()
        if missing := missing_types(application, self._allowed_updates):
            logger.warning(
                "%s handles %s, which the receiver does not ask Telegram for: set FLOODGATE_UPDATES__ALLOWED to "
                '["all"], or add the types to it, for `floodgate updates` and for this worker.',
                self._name,
                ", ".join(missing),
            )
        if application.persistence is None:
            logger.info("%s has no persistence: its chat data is lost when this process ends", self._name)

    async def close(self) -> None:
        """Stop and shut down the Application. Safe to call unopened."""
        application = self._application
        if application.running:
            await application.stop()
            if application.post_stop is not None:
                await application.post_stop(application)
        await application.shutdown()
        if application.post_shutdown is not None:
            await application.post_shutdown(application)

    async def handle(self, run: HandlerRun) -> None:
        """Run the Application's handlers, and write its persistence.

        Raises:
            UnreadableUpdateError: the library cannot parse the update.
            Exception: any exception that the handlers raise and the error handlers do not deal with.
        """
        update = self._read(run)
        if self._callback_data is not None:
            await self._callback_data.insert(update, run.update.body)
        await self._conversations.prepare(update)
        await self._application.process_update(update)
        run.over = True
        if run.error is not None:
            raise run.error
        if self._callback_data is not None:
            await self._callback_data.finish(run)
        await self._flusher.flush()

    async def moved_here(self, bot: str, partition: int, partitions: int) -> None:
        """Reload the conversations of a partition that another worker had until now."""
        application = self._application
        if application.persistence is None or isinstance(application.persistence, _OF_ONE_PROCESS):
            logger.warning(
                "the data of %s for the chats of updates.%s.%02d stayed in another worker's memory: give the "
                "Application a persistence that all workers share (docs/updates.md)",
                self._name,
                bot,
                partition,
            )
            return
        await self._conversations.renew(partition, partitions)

    async def _introduce(self) -> None:
        """Wait, within a bound, until Telegram can be reached: the Application cannot start without it.

        Raises:
            SettingsError: Telegram refuses the token.
            NotSentError: Telegram cannot be reached.
        """
        deadline = time.monotonic() + INTRODUCTION_SECONDS
        while True:
            try:
                await self._application.bot.initialize()
                return
            except InvalidToken:  # its text contains the token
                raise SettingsError(
                    f"Telegram refuses the token of {self._name}: correct FLOODGATE_BOT_TOKEN."
                ) from None
            except NetworkError as error:
                if time.monotonic() > deadline:
                    raise NotSentError(
                        f"Telegram cannot be reached ({error}), and {self._name} cannot start without it. Check "
                        "FLOODGATE_TELEGRAM_API_URL and the network."
                    ) from None
                logger.warning("%s is waiting for Telegram: %s", self._name, error)
            await asyncio.sleep(RETRY_SECONDS)

    def _read(self, run: HandlerRun) -> TelegramUpdate:
        try:
            update = TelegramUpdate.de_json(run.update.body, self._application.bot)
        except (TelegramError, KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise UnreadableUpdateError(f"{type(error).__name__}: {error}") from error
        if unknown := update.api_kwargs.keys() - self._logged:
            self._logged |= unknown
            logger.warning("python-telegram-bot does not know updates of type %s: ignoring them", ", ".join(unknown))
        return update

    def _stand_first(self) -> None:
        """Register Floodgate's error handlers before and after the user's."""
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
        """Record an error that none of the user's error handlers has stopped."""
        run = current_run()
        if run is not None and not run.over:
            run.error = context.error
        elif len(self._application.error_handlers) == 2:  # only Floodgate's own: nothing else would report it
            logger.error("%s raised an exception outside of an update", self._name, exc_info=context.error)


def _give_request(bot: Any, request: BaseRequest) -> None:
    held = getattr(bot, "_request", None)
    if not (isinstance(held, tuple) and len(held) == 2):
        raise SettingsError("This version of python-telegram-bot is not supported: install telegram-floodgate[worker].")
    bot._request = (request, request)
