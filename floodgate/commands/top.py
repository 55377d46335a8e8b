"""``floodgate top``."""

from __future__ import annotations

import logging
import sys

from floodgate.broker.errors import InvalidParamsError
from floodgate.broker.settings.model import load_settings
from floodgate.commands.options import AnyBot
from floodgate.letters import reading


def top(bot: AnyBot = None) -> None:
    """Show the live picture in the terminal: rates, waiting jobs, pauses, campaigns, dead letters. q ends it.

    The footer shows the keys. Upper-case keys destroy something; they say how much, and ask.

    Example: floodgate top
    """
    settings = load_settings()
    bots = reading.bots(settings, bot)
    from floodgate.top.app import TopApp

    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise InvalidParamsError("`floodgate top` needs a terminal. In a script use `floodgate status --json`.")
    logging.getLogger("floodgate").addHandler(logging.NullHandler())  # a log line would be written over the picture
    TopApp(settings, bots).run()
