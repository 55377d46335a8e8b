"""The pages as someone would attack them who has no role, or too low a one, or who can write what the pages show.

The tests walk every route of the application, so a route that is added is attacked as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from html.parser import HTMLParser
from typing import Final
from urllib.parse import quote, urlencode

import pytest
from starlette.routing import Mount, Route

from floodgate.broker.messages import dead_letters
from floodgate.broker.messages.update import publication, read_update
from floodgate.broker.settings.web import WebSettings
from floodgate.web.access.guard import Access
from floodgate.web.app import STATIC, Pages
from floodgate.web.history import PLOTS
from floodgate.web.viewer import DESTROYING, Action
from tests.integration.web.conftest import BOT, Desk
from tests.web import WebClient, serving

TOKENS: Final = {role: f"{role}-token-of-enough-length" for role in ("read", "operate", "admin")}
PUBLIC: Final = frozenset({"/health", "/login"})
SECRET: Final = "what-Ann-wrote-to-Bob"
EVIL: Final = "\"'><script>alert(1)</script><img src=x onerror=alert(1)><a href=javascript:alert(1)>x</a>"
# What stands for each parameter of a path: a route with another one fails the tests until it is added here.
CAMPAIGN: Final = "spring"
PARAMETERS: Final = {
    "action": list(Action),
    "bot": [BOT],
    "chat": ["5"],
    "entry": ["none"],
    "letter": ["job-secret"],
    "name": [CAMPAIGN],
    "plot": list(PLOTS),
}
INLINE: Final = re.compile(r"""<script(?! src="/static/)|<style|\s(?:style|on[a-z]+|srcdoc)\s*=|javascript:""")
QUERY_FIELDS: Final = (
    *("back", "bot", "campaign", "chat", "for", "id", "job", "name", "next", "page", "reason", "since", "text"),
    *("touches", "until", "why"),
)


@dataclass
class Guarded:
    """The pages behind their access control."""

    app: Pages
    client: WebClient

    def visitor(self, role: str | None = None) -> WebClient:
        """Returns a browser of someone with a role; without, of someone who is not logged in."""
        made = WebClient(self.client.host, self.client.port)
        if role is not None:
            assert made.log_in(TOKENS[role]).status == 303
        return made

    def paths(self, method: str) -> list[str]:
        """Returns a path for each route that takes a method, and for each action."""
        routes = [route for route in self.app.app.routes if not isinstance(route, Mount)]
        assert all(isinstance(route, Route) for route in routes)
        taking = [route for route in routes if isinstance(route, Route) and method in (route.methods or ())]
        return sorted({path for route in taking for path in _concrete(route.path)})


def _concrete(path: str) -> Iterator[str]:
    start = path.find("{")
    if start < 0:
        yield path
        return
    end = path.index("}", start)
    for value in PARAMETERS[path[start + 1 : end].partition(":")[0]]:
        yield from _concrete(path[:start] + str(value) + path[end + 1 :])


@pytest.fixture
def guarded(desk: Desk) -> Iterator[Guarded]:
    tokens = {f"{role}-viewer": {"token": token, "role": role} for role, token in TOKENS.items()}
    settings = desk.settings.model_copy(update={"web": WebSettings.model_validate({"tokens": tokens})})
    access = Access(settings.web)
    pages = Pages(settings, routes=access.routes)
    with serving(access.guard(pages.app), lifespan="on") as client:
        yield Guarded(pages, client)


def streams(path: str) -> bool:
    """Whether a path answers with endless events."""
    return path.startswith("/live/")


# Roles


def test_no_route_is_open_to_someone_who_is_not_logged_in(guarded: Guarded) -> None:
    stranger = guarded.visitor()
    assert len(guarded.paths("GET")) > 20
    for path in set(guarded.paths("GET")) - PUBLIC:
        answer = stranger.get(path)
        assert (answer.status, answer.headers["Location"]) == (303, f"/login?next={quote(quote(path), safe='')}"), path
        assert stranger.send("GET", path).status == 401, path
    for path in set(guarded.paths("POST")) - PUBLIC:
        assert stranger.post(path, {"csrf_token": stranger.get("/login").csrf_token}).status == 401, path


def test_no_route_takes_another_method(guarded: Guarded) -> None:
    admin = guarded.visitor("admin")
    for method in ("PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"):
        for path in {*guarded.paths("GET"), *guarded.paths("POST"), "/static/floodgate.css"}:
            assert admin.send(method, path).status == 405, (method, path)


def test_no_route_changes_anything_for_a_reader(guarded: Guarded) -> None:
    reader = guarded.visitor("read")
    token = reader.get("/").csrf_token
    assert len(guarded.paths("POST")) > len(Action)
    for path in set(guarded.paths("POST")) - {"/login", "/logout"}:
        answer = reader.post(path, {"csrf_token": token, "bot": BOT, "chat": "5", "touches": "9"})
        assert answer.status == 403, path


@pytest.mark.parametrize("role", ["read", "operate", "admin"])
def test_a_role_may_confirm_and_take_its_own_actions_only(guarded: Guarded, role: str) -> None:
    viewer = guarded.visitor(role)
    token = viewer.get("/").csrf_token
    for action in Action:
        allowed = role == "admin" or (role == "operate" and action not in DESTROYING)
        assert (viewer.get(f"/actions/{action}").status != 403) == allowed, action
        assert (viewer.post(f"/actions/{action}", {"csrf_token": token}).status != 403) == allowed, action


def test_texts_are_shown_on_no_route_unless_the_role_says_so(desk: Desk, guarded: Guarded) -> None:
    desk.bury(desk.job("secret").model_copy(update={"params": {"chat_id": 5, "text": SECRET}}))
    content = {"text": f"{SECRET} {{{{ name }}}}"}
    desk.campaigns.create({"name": CAMPAIGN, "bot": BOT, "content": content}, [{"chat_id": 5, "name": SECRET}])
    seen = {role: _where_shown(guarded, role) for role in TOKENS}
    assert (seen["read"], seen["operate"]) == ([], [])
    assert {f"/campaigns/{CAMPAIGN}?chat=5", "/dead-letters/job-secret"} <= set(seen["admin"])


def _where_shown(guarded: Guarded, role: str) -> list[str]:
    viewer = guarded.visitor(role)
    paths = [path for path in guarded.paths("GET") if not streams(path)]
    return [path for path in (*paths, f"/campaigns/{CAMPAIGN}?chat=5") if SECRET in viewer.get(path).text]


def test_nobody_can_search_for_a_text_that_they_may_not_see(desk: Desk, guarded: Guarded) -> None:
    desk.bury(desk.job("secret").model_copy(update={"params": {"chat_id": 5, "text": SECRET}}))
    for role in ("read", "operate"):
        viewer = guarded.visitor(role)
        for path in ("/dead-letters", f"/actions/{Action.REPLAY_LETTERS}"):
            known, unknown = (viewer.get(f"{path}?text={text}") for text in (SECRET, "something-else"))
            assert known.status == unknown.status in (400, 403), path


# CSRF


def test_no_route_changes_anything_for_another_site(guarded: Guarded) -> None:
    admin = guarded.visitor("admin")
    token = admin.get("/").csrf_token
    for path in guarded.paths("POST"):
        assert admin.post(path, {"bot": BOT}).status == 403, path
        assert admin.post(path, {"csrf_token": token}, Origin="https://evil.example").status == 403, path
    assert admin.get("/").status == 200  # and is still logged in


def test_no_get_changes_anything(desk: Desk, guarded: Guarded) -> None:
    desk.bury(desk.job("one"))
    desk.store.mark_unreachable(BOT, "5", "Forbidden")
    admin = guarded.visitor("admin")
    fields = urlencode({"bot": BOT, "chat": "5", "id": "job-one", "for": "5m", "touches": "9", "why": "x"})
    for action in Action:
        admin.get(f"/actions/{action}?{fields}")
    assert desk.depth(f"dead.{BOT}") == 1
    assert desk.store.unreachable(BOT) and not desk.store.snapshot(BOT).pauses


# Static files


OUTSIDE: Final = (
    *("../app.py", "..%2fapp.py", "%2e%2e/app.py", "%2e%2e%2fapp.py", "vendor/../../app.py", "..\\app.py"),
    *("%5c..%5capp.py", "..;/app.py", "/etc/passwd", "%2fetc%2fpasswd", "....//app.py", "%00", "icon.svg%00.js"),
    *("../templates/base.html", "", ".", "vendor", "vendor/", "C:\\app.py"),
)


def test_no_path_leads_out_of_the_static_files(guarded: Guarded) -> None:
    stranger = guarded.visitor()
    for path in OUTSIDE:
        answer = stranger.get(f"/static/{path}")
        assert answer.status in (303, 400, 404), path
        assert "import" not in answer.text and "root:" not in answer.text


def test_no_static_file_is_a_link() -> None:
    assert not [path for path in STATIC.rglob("*") if path.is_symlink()]


# Script injection


class Markup(HTMLParser):
    """Collects what would run in a browser."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag in ("img", "iframe", "object", "embed", "base", "style") or (tag == "script" and not _own(given)):
            self.found.append(f"<{tag}>")
        self.found += [name for name in given if name.startswith(("on", "style", "hx-", "srcdoc"))]
        links = [given.get(name, "") for name in ("href", "src", "action", "formaction", "data-live", "data-plot")]
        self.found += [link for link in links if link and not link.startswith(("/", "#", "?"))]
        self.found += [link for link in links if link.startswith(("//", "/\\"))]


def _own(attributes: dict[str, str]) -> bool:
    return attributes.get("src", "").startswith("/static/") and "defer" in attributes


def harmful(text: str) -> Sequence[str]:
    return Markup(text).found


def test_the_check_itself_finds_what_would_run() -> None:
    assert harmful(f'<p title="{EVIL}">') == ["<script>", "<img>", "onerror", "x", "javascript:alert(1)"]
    assert INLINE.findall('<p style="x">') and INLINE.findall("<b onclick=x>") and INLINE.findall("<script>")
    assert harmful('<a href="//evil.example">x</a><form action="javascript:x">') != []


def test_what_telegram_and_callers_write_runs_nowhere(desk: Desk, guarded: Guarded) -> None:
    _write_everywhere(desk)
    for role in ("admin", "read"):
        viewer = guarded.visitor(role)
        letter = quote(EVIL, safe="")
        more = [f"/dead-letters/{letter}", f"/chats/{BOT}/@{letter}", f"/campaigns/{letter}", f"/jobs?id={letter}"]
        more += [f"/campaigns/{CAMPAIGN}?chat=6", "/dead-letters/evil-traceback"]
        for path in (*guarded.paths("GET"), *more):
            if not streams(path):
                answer = viewer.get(path)
                assert answer.status < 500, path
                assert harmful(answer.text) == [], path


def _write_everywhere(desk: Desk) -> None:
    job = desk.job("evil", campaign=CAMPAIGN).model_copy(update={"params": {"chat_id": 5, "text": EVIL}})
    desk.bury(job, EVIL, EVIL)
    desk.publish(dead_letters.malformed(EVIL, EVIL.encode(), EVIL, EVIL))
    update = read_update(BOT, {"update_id": 1, "message": {"chat": {"id": 5, "title": EVIL}, "text": EVIL}})
    body = publication(update, 2).body
    failed = dead_letters.dead_update(update, body, EVIL, "handler-failed", EVIL, attempts=3, traceback=EVIL)
    desk.publish(failed)
    desk.store.mark_unreachable(BOT, "666", EVIL)
    desk.store.pause(BOT, None, timedelta(minutes=1), EVIL)
    desk.store.pause(BOT, "5", timedelta(minutes=1), EVIL)
    audience = [{"chat_id": 6, "name": EVIL}]
    desk.campaigns.create({"name": CAMPAIGN, "bot": BOT, "content": {"text": f"{{{{ name }}}}{EVIL}"}}, audience)


def test_what_is_in_a_url_runs_nowhere(guarded: Guarded) -> None:
    admin = guarded.visitor("admin")
    for path in guarded.paths("GET"):
        if streams(path):
            continue
        for query in (urlencode(dict.fromkeys(QUERY_FIELDS, EVIL)), *(urlencode({f: EVIL}) for f in QUERY_FIELDS)):
            answer = admin.get(f"{path}?{query}")
            assert answer.status < 500, (path, query)
            assert harmful(answer.text) == [], (path, query)


def test_no_template_needs_what_the_policy_forbids() -> None:
    for path in STATIC.parent.joinpath("templates").iterdir():
        found = INLINE.findall(path.read_text())
        assert found == [], path.name


# The cache


def test_no_page_is_kept_by_a_cache(guarded: Guarded) -> None:
    admin = guarded.visitor("admin")
    for path in guarded.paths("GET"):
        if not streams(path):
            assert admin.get(path).headers["Cache-Control"] == "no-store", path
