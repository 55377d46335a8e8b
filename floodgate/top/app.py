"""The application: it owns the two threads, keeps the latest picture, and gives it to the screen in front."""

from __future__ import annotations

import asyncio
import signal
from collections import defaultdict, deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, ClassVar, Final, TypeVar

from textual.app import App
from textual.binding import Binding, BindingType
from textual.message import Message

from floodgate.broker.errors import FloodgateError
from floodgate.broker.settings.model import Settings
from floodgate.overview.picture import BotOverview, Overview
from floodgate.top.background import LivePicture, Operator
from floodgate.top.operations import Operations
from floodgate.top.screens import BotsScreen, LiveScreen
from floodgate.top.widgets import Question

T = TypeVar("T")

SECONDS_SHOWN: Final = 30
"""How many seconds of sending the sparkline shows."""


class OnLoop(Message):
    """Something to be called on the event loop, from a thread."""

    def __init__(self, call: Callable[[], object]) -> None:
        super().__init__()
        self.call = call


class TopApp(App[None]):
    """`floodgate top` for some bots."""

    CSS_PATH = "top.tcss"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "quit"),
        Binding("ctrl+c", "quit", "quit", show=False, priority=True),
    ]

    def __init__(self, settings: Settings, bots: list[str]) -> None:
        super().__init__()
        self.overview: Overview | None = None
        self.sent: defaultdict[str, deque[int]] = defaultdict(lambda: deque(maxlen=SECONDS_SHOWN))
        self._picture = LivePicture(
            settings, bots, lambda overview: self._soon(lambda: self._show(overview)), self._crash
        )
        self._operator = Operator(settings, self._soon, self._fail)

    def get_default_screen(self) -> BotsScreen:
        """Return the screen below all others."""
        return BotsScreen("floodgate top")

    def on_mount(self) -> None:
        """Start the threads."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self.exit)
        self._picture.start()
        self._operator.start()

    def on_unmount(self) -> None:
        """Stop the threads, without waiting for them."""
        self._picture.stop()
        self._operator.stop()

    def bot(self, name: str | None) -> BotOverview | None:
        """Return what is known of a bot."""
        return next((bot for bot in self.overview.bots if bot.name == name), None) if self.overview else None

    def operate(self, operation: Callable[[Operations], str], then: Callable[[], object] = lambda: None) -> None:
        """Have something done on the operator's thread, say what was done, then call ``then``."""

        def done(said: str) -> None:
            self.notify(said, markup=False)
            self._picture.refresh()
            then()

        self.load(operation, done)

    def load(self, work: Callable[[Operations], T], then: Callable[[T], object]) -> None:
        """Have something read on the operator's thread, then call ``then`` with it."""

        def do(operations: Operations) -> Callable[[], None]:
            found = work(operations)
            return lambda: (then(found), None)[1]

        if not self._operator.submit(do):
            self.notify("Too much is under way already: wait until it is done.", severity="warning")

    def ask(self, question: str) -> bool:
        """Ask the operator, from the operator's thread, and wait for the answer."""
        answer: Future[bool] = Future()
        self._soon(lambda: self.push_screen(Question(question), lambda said: answer.set_result(bool(said))))
        return answer.result()

    def on_on_loop(self, message: OnLoop) -> None:
        """Call what a thread wants to be called."""
        message.call()

    def _soon(self, call: Callable[[], object]) -> None:
        self.post_message(OnLoop(call))

    def _read(self, overview: Overview) -> None:
        self._soon(lambda: self._show(overview))

    def _show(self, overview: Overview) -> None:
        self.overview = overview
        for bot in overview.bots:
            if bot.snapshot is not None:
                self.sent[bot.name].append(bot.snapshot.sent_last_second)
        if isinstance(self.screen, LiveScreen):
            self.screen.show(overview)

    def _fail(self, error: BaseException) -> None:
        if isinstance(error, FloodgateError):
            self._soon(lambda: self.notify(str(error), severity="error", markup=False))
        else:
            self._crash(error)

    def _crash(self, error: BaseException) -> None:
        def bug() -> Any:
            raise error

        self._soon(bug)
