"""The application of `floodgate top`."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import Binding, BindingType

from floodgate.top.live import LiveApp
from floodgate.top.screens import BotsScreen


class TopApp(LiveApp):
    """`floodgate top` for some bots."""

    CSS = """
    Screen { layout: vertical; }
    #title, #health { height: 1; padding: 0 1; }
    #health, #lines { text-wrap: nowrap; text-overflow: ellipsis; }
    #lines { height: 1fr; padding: 0 1; margin-top: 1; }
    Rows { height: auto; max-height: 60%; margin-top: 1; scrollbar-size: 1 1; }
    Question, ChatInput { align: center middle; }
    Question > Vertical, ChatInput > Vertical {
        width: 64; height: auto; padding: 1 2; border: round $accent; background: $surface;
    }
    Question Static, ChatInput Static { margin-bottom: 1; }
    """
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "quit"),
        Binding("ctrl+c", "quit", "quit", show=False, priority=True),
    ]

    def get_default_screen(self) -> BotsScreen:
        """Return the screen below all others."""
        return BotsScreen("floodgate top")
