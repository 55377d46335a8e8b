"""Makes the screenshots of the documentation: ``python -m tests.browser.screenshots`` renews docs/images/web-*.png.

It runs a Floodgate of its own for half a minute, so that the plots have something to show.
"""

from __future__ import annotations

import random
import tempfile
import time
from pathlib import Path
from typing import Final

from playwright.sync_api import Browser, sync_playwright

from rabbitmq_node.node import Node
from tests.browser.conftest import Visitor, launch, log_in
from tests.browser.scene import BUSY, GROUP, QUIET, Scene, scene
from tests.processes import FloodgateProcess
from tests.waiting import until

IMAGES: Final = Path(__file__).parents[2] / "docs/images"
CAMPAIGN: Final = "spring-sale"
WIDE, HIGH = 1080, 660
NARROW, TALL = 360, 720
RUN_SECONDS: Final = 25.0
REFUSALS: Final = {
    501: "Bad Request: can't parse entities: Can't find end of the entity starting at byte offset 42",
    502: "Bad Request: message is too long",
    503: "Bad Request: not enough rights to send text messages to the chat",
    504: "Bad Request: chat not found",
}


def main() -> None:
    """Make all pictures."""
    with tempfile.TemporaryDirectory() as home, Node() as node, scene(node.url, Path(home), fill_with_work) as site:
        time.sleep(RUN_SECONDS)
        with sync_playwright() as playwright:
            browser = launch(playwright.chromium)
            for dark in (False, True):
                take_all(site, browser, dark)
            browser.close()


def fill_with_work(site: Scene) -> None:
    """Gives the worker an ordinary day's work."""
    site.control.limits(bot=(60, 1))  # a machine that is busy with other things shows no 429
    for chat, description in REFUSALS.items():
        site.control.set_chat(chat, trouble="answer", code=400, description=description)
    for chat in range(601, 606):
        site.control.set_chat(chat, trouble=random.choice(["blocked", "deactivated"]))
        site.send(chat, "Your order is on its way.")
    for number in range(14):
        site.send(501 + number % 4, "Your invoice is ready.", random.choice([BUSY, QUIET]))
    for number in range(45):
        site.send(GROUP, f"Build {number} is green.")
    for number in range(30):
        site.send(700 + number, "Thank you, we are looking into it.", QUIET)
    audience = [{"chat_id": 20_000 + n, "first_name": f"Reader {n}"} for n in range(4000)]
    content = {"text": "Hello {{ first_name }}, spring is here."}
    site.campaigns.create({"name": CAMPAIGN, "bot": BUSY, "content": content}, audience)
    site.campaigns.create({"name": "newsletter-11", "bot": BUSY, "content": content}, audience[:150])
    site.campaigns.create({"name": "survey", "bot": QUIET, "content": content}, audience[:900])
    leader = FloodgateProcess("campaigns", "run", env=site.stage.env, home=site.stage.home, name="campaigns")
    site.stage.keep(leader).start("campaigns ready")
    site.campaigns.start(CAMPAIGN)
    site.campaigns.start("survey")
    until(lambda: site.campaigns.progress("survey").ended > 60, 60)
    site.campaigns.pause("survey")
    site.crowd(2500, QUIET)


def take_all(site: Scene, browser: Browser, dark: bool) -> None:
    """Take every picture in one colour scheme."""
    shade = "dark" if dark else "light"
    wide = _visitor(site, browser, dark, WIDE, HIGH)
    until(lambda: visible_letters(wide), 60)
    for name, path in {
        "overview": "/",
        "chat": f"/chats/{BUSY}/{GROUP}",
        "dead-letters": "/dead-letters",
        "confirm": "/actions/drop-letters?reason=content",
        "campaign": f"/campaigns/{CAMPAIGN}",
    }.items():
        _take(wide, path, f"web-{name}-{shade}.png")
    narrow = _visitor(site, browser, dark, NARROW, TALL)
    _take(narrow, "/", f"web-narrow-{shade}.png")


def _visitor(site: Scene, browser: Browser, dark: bool, width: int, height: int) -> Visitor:
    scheme = "dark" if dark else "light"
    context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": height})  # type: ignore[arg-type]
    visitor = Visitor(context.new_page(), site.url)
    log_in(visitor, "admin")
    return visitor


def visible_letters(visitor: Visitor) -> int:
    """Count the dead letters that have been read so far."""
    return visitor.go("/dead-letters").locator("a[href^='/dead-letters/']").count()


def _take(visitor: Visitor, path: str, name: str) -> None:
    page = visitor.go(path)
    page.wait_for_timeout(1500)  # for plots and live parts
    page.screenshot(path=IMAGES / name)


if __name__ == "__main__":
    main()
