"""What shows a live picture: the application with its two threads, and the screens' common part."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, ClassVar, Final, TypeVar, cast

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.screen import Screen
from textual.widgets import Footer, Static

from floodgate.broker.errors import FloodgateError
from floodgate.broker.settings.model import Settings
from floodgate.overview.picture import BotOverview, Overview
from floodgate.top.background import OperatorThread, PictureThread
from floodgate.top.lines import health_line
from floodgate.top.operations import Operations
from floodgate.top.widgets import Column, Question, Rows

T = TypeVar("T")

END_SECONDS: Final = 10
"""How long a process that got SIGTERM may take to end by itself."""


class LiveScreen(Screen[None]):
    """A screen with a title, the health of what Floodgate depends on, a table, lines of text, and its keys."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "app.back", "back")]
    COLUMNS: ClassVar[list[Column]] = []
    OPENS: ClassVar[bool] = False

    def __init__(self, title: str) -> None:
        super().__init__()
        self._title = title
        self.rows = Rows(self.COLUMNS, opens=self.OPENS)
        self.lines = Static(id="lines")
        self.health = Static(id="health")

    @property
    def top(self) -> LiveApp:
        """The app."""
        return cast("LiveApp", self.app)

    def compose(self) -> ComposeResult:
        yield Static(Text(self._title, style="bold"), id="title")
        yield self.health
        if self.COLUMNS:
            yield self.rows
        yield self.lines
        yield Footer(show_command_palette=False, compact=True)

    def on_screen_resume(self) -> None:
        """Show the latest picture, which was not shown while another screen was in front."""
        if self.top.overview is not None:
            self.show(self.top.overview)

    def show(self, overview: Overview) -> None:
        """Show a picture."""
        self.health.update(health_line(overview))
        self.draw(overview)

    def draw(self, overview: Overview) -> None:
        """Draw the table and the lines."""
        raise NotImplementedError

    def operate(self, operation: Callable[[Operations, str], str], then: Callable[[], object] = lambda: None) -> None:
        """Have something done to what is under the cursor, if anything is; then call ``then``."""
        if (chosen := self.rows.chosen) is not None:
            self.top.operate(lambda operations: operation(operations, chosen), then)


class OnLoop(Message):
    """Something to be called on the event loop, from a thread."""

    def __init__(self, call: Callable[[], object]) -> None:
        super().__init__()
        self.call = call


class LiveApp(App[None]):
    """Owns the two threads, keeps the latest picture, and gives it to the screen in front."""

    def __init__(self, settings: Settings, bots: list[str]) -> None:
        super().__init__()
        self.overview: Overview | None = None
        self._sigterm_before: Any = signal.SIG_DFL
        self._picture = PictureThread(settings, bots, self._read, self._crash)
        self._operator = OperatorThread(settings, self._soon, self._fail)

    def on_mount(self) -> None:
        """Begin to follow the picture."""
        loop = asyncio.get_running_loop()

        def end(_number: int, _frame: object) -> None:
            signal.alarm(END_SECONDS)  # the loop may hang in writing to a terminal that is gone
            loop.call_soon_threadsafe(self.exit)

        self._sigterm_before = signal.signal(signal.SIGTERM, end)
        self.start_threads()

    def start_threads(self) -> None:
        """Start the threads."""
        self._picture.start()
        self._operator.start()

    def on_unmount(self) -> None:
        """Stop the threads, without waiting for them."""
        signal.signal(signal.SIGTERM, self._sigterm_before)
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

    def load(self, work: Callable[[Operations], T], then: Callable[[T], object]) -> bool:
        """Have something read on the operator's thread, then call ``then`` with it. Return False if it is too busy."""

        def do(operations: Operations) -> Callable[[], None]:
            found = work(operations)
            return lambda: (then(found), None)[1]

        submitted = self._operator.submit(do)
        if not submitted:
            self.notify("Too much is under way already: wait until it is done.", severity="warning")
        return submitted

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
        self._soon(lambda: self.show(overview))

    def show(self, overview: Overview) -> None:
        """Show a picture."""
        self.overview = overview
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
