"""One browser and one set of servers for all tests of this folder.

site       the Floodgate that the browser looks at
browser    Debian's Chromium
open_page  opens a page: open_page("/bots", role="admin", dark=True, width=360, javascript=False)
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, expect, sync_playwright

from tests.browser.scene import TOKENS, Scene, fill_with_trouble, scene
from tests.services import Vhosts

WIDE, HIGH = 1280, 800
ANSWER_MS = 30_000


@dataclass
class Visitor:
    """A page in a browser of its own, and what went wrong on it."""

    page: Page
    url: str
    errors: list[str] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)
    """Requests that would have left the machine."""

    def __post_init__(self) -> None:
        self.page.on("console", self._note)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", self._watch)

    def go(self, path: str) -> Page:
        answer = self.page.goto(self.url + path)
        assert answer is not None and answer.ok, f"{path}: {answer and answer.status}"
        return self.page

    def _note(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.errors.append(f"{message.text} ({message.location.get('url')})")

    def _watch(self, request: Request) -> None:
        if urlsplit(request.url).netloc != urlsplit(self.url).netloc and not request.url.startswith("data:"):
            self.strangers.append(request.url)


OpenPage = Callable[..., Visitor]


@pytest.fixture(scope="session")
def site(vhosts: Vhosts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    vhost = vhosts.take()
    with scene(vhost.url, tmp_path_factory.mktemp("site"), fill_with_trouble) as made:
        yield made
    vhosts.give_back(vhost)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=ANSWER_MS)
    with sync_playwright() as playwright:
        launched = launch(playwright.chromium)
        yield launched
        launched.close()


def launch(chromium: object) -> Browser:
    """Starts Debian's Chromium. As root it has no sandbox, and in a container /dev/shm may be small."""
    program = shutil.which("chromium")
    assert program is not None, "Install Chromium: scripts/setup --tests does."
    flags = ["--disable-dev-shm-usage", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    started: Browser = chromium.launch(executable_path=program, args=flags)  # type: ignore[attr-defined]
    return started


@pytest.fixture(scope="session")
def logins() -> dict[str, list[Any]]:
    """The cookies of those who have logged in, by role."""
    return {}


@pytest.fixture
def open_page(site: Scene, browser: Browser, logins: dict[str, list[Any]]) -> Iterator[OpenPage]:
    """Opens a page. After the test, nothing may have gone wrong on any of them."""
    visitors: list[tuple[BrowserContext, Visitor]] = []

    def opened(
        path: str = "/", role: str | None = "admin", *, dark: bool = False, width: int = WIDE, javascript: bool = True
    ) -> Visitor:
        context = browser.new_context(
            color_scheme="dark" if dark else "light",
            viewport={"width": width, "height": HIGH},
            java_script_enabled=javascript,
        )
        context.set_default_timeout(ANSWER_MS)
        visitor = Visitor(context.new_page(), site.url)
        visitors.append((context, visitor))
        if role in logins:
            context.add_cookies(logins[role])
        elif role is not None:
            log_in(visitor, role)
            logins[role] = list(context.cookies())
        visitor.go(path)
        return visitor

    yield opened
    faults = [(visitor.errors, visitor.strangers) for _, visitor in visitors]
    for context, _ in visitors:
        context.close()
    assert all(fault == ([], []) for fault in faults), faults


def log_in(visitor: Visitor, role: str) -> None:
    """Fills in the login form."""
    visitor.go("/login")
    visitor.page.get_by_label("Token").fill(TOKENS[role])
    visitor.page.get_by_role("button", name="Log in").click()
    visitor.page.wait_for_url(lambda url: "/login" not in url)
