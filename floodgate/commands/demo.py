"""``floodgate demo``."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console


def demo(
    chat: Annotated[
        str | None, typer.Option(help="Send to this chat on Telegram itself, with FLOODGATE_BOT_TOKEN.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Run a third of the load, in a third of the time.")] = False,
    updates: Annotated[bool, typer.Option("--updates", help="Simulate people who talk to a bot.")] = False,
    campaign: Annotated[bool, typer.Option("--campaign", help="Send a campaign, and kill its leader.")] = False,
) -> None:
    """Send a realistic load to a local Bot API that enforces Telegram's limits, and account for every job.

    Takes about a minute and exits with 1 if anything does not add up. With --updates, simulated people talk to a bot
    while receivers and workers start and stop. With --campaign, a campaign's leader is killed, and the campaign paused
    and resumed, before each recipient is accounted for. With --chat and a real token, sends ten messages to Telegram
    itself.

    Example: floodgate demo
    """
    console = Console(highlight=False)
    if updates:
        from floodgate.demo import updates as talk

        adds_up = talk.run_updates_demo(console, talk.QUICK if quick else talk.FULL)
    elif campaign:
        from floodgate.demo import campaign as mailing

        adds_up = mailing.run_campaign_demo(console, mailing.QUICK if quick else mailing.FULL)
    elif chat is None:
        from floodgate.demo import script
        from floodgate.demo.run import run_demo

        adds_up = run_demo(console, script.QUICK if quick else script.FULL)
    else:
        from floodgate.demo.real import run_real_demo

        adds_up = run_real_demo(console, chat)
    if not adds_up:
        raise typer.Exit(1)
