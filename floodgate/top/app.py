"""The application of `floodgate top`."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import Binding, BindingType

from floodgate.top.live import LiveApp
from floodgate.top.screens import BotsScreen


class TopApp(LiveApp):
    """`floodgate top` for some bots."""

    CSS_PATH = "top.tcss"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "quit"),
        Binding("ctrl+c", "quit", "quit", show=False, priority=True),
    ]

    def get_default_screen(self) -> BotsScreen:
        """Return the screen below all others."""
        return BotsScreen("floodgate top")
