"""Access to the web pages, over real HTTP, as someone would attack it."""

from __future__ import annotations

import asyncio
import http.client
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import ip_address
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from floodgate.broker.errors import SettingsError
from floodgate.broker.settings.web import WebSettings
from floodgate.web.access.attempts import IN_ALL, PER_ADDRESS, LoginAttempts
from floodgate.web.access.guard import Access
from floodgate.web.access.sessions import LIFE, MOST_SESSIONS, WebSessions
from floodgate.web.viewer import viewer_of
from tests.web import WebClient, serving

READ, OPERATE, ADMIN = "read-token-of-enough-length", "operate-token-of-enough-length", "admin-token-of-enough-length"
TOKENS = {
    "rita": {"token": READ, "role": "read"},
    "otto": {"token": OPERATE, "role": "operate"},
    "ann": {"token": ADMIN, "role": "admin"},
}
PROXY = {"proxy_header": "X-Forwarded-User", "proxy_addresses": ["127.0.0.1"]}
DONE: list[str] = []

Serve = Callable[..., WebClient]


async def _page(request: Request) -> Response:
    viewer = viewer_of(request)
    form = f'<input name="csrf_token" value="{request.state.csrf_token}">'
    return Response(f"{viewer.name} {viewer.sees_texts} {form}", media_type="text/html")


async def _act(request: Request) -> Response:
    DONE.append(str((await request.form())["what"]))
    return PlainTextResponse("done")


async def _endless(_request: Request) -> Response:
    async def events() -> AsyncIterator[bytes]:
        while True:
            yield b"data: secret\n\n"
            await asyncio.sleep(0.05)

    return StreamingResponse(events(), media_type="text/event-stream")


async def _alive(_request: Request) -> Response:
    return PlainTextResponse("alive")


async def _broken(_request: Request) -> Response:
    raise RuntimeError("a fault of the page")


ROUTES = [
    Route("/", _page),
    Route("/act", _act, methods=["POST"]),
    Route("/endless", _endless),
    Route("/health", _alive),
    Route("/broken", _broken),
]


@pytest.fixture(scope="module")
def servers() -> Iterator[Serve]:
    """Serves a small application behind access control; one server for the same settings."""
    running: dict[str, WebClient] = {}
    with ExitStack() as stack:

        def start(sessions: WebSessions | None = None, which: str = "", **settings: Any) -> WebClient:
            name = f"{which} {sessions} {settings}"
            if name not in running:
                access = Access(WebSettings(**settings), sessions)
                app = Starlette(routes=[*access.routes, *ROUTES])
                running[name] = stack.enter_context(serving(access.guard(app)))
            return WebClient(running[name].host, running[name].port)

        yield start


@pytest.fixture
def serve(servers: Serve) -> Serve:
    """A client of a server, with no cookies: serve(tokens=…)."""
    DONE.clear()
    return servers


@pytest.fixture
def client(serve: Serve) -> WebClient:
    """A client of a server with three tokens, not logged in."""
    return serve(tokens=TOKENS)


@pytest.fixture
def guessed(serve: Serve, request: pytest.FixtureRequest) -> WebClient:
    """The same, of a server that only this test fails to log in to."""
    return serve(tokens=TOKENS, which=request.node.name)


# Listening


@pytest.mark.parametrize("address", ["0.0.0.0:8090", "[::]:8090", "192.0.2.1:8090", "floodgate.example.com:8090"])
def test_an_address_of_the_network_is_refused_without_authentication(address: str) -> None:
    with pytest.raises(SettingsError, match=r"would be open to everybody who can reach .*: set FLOODGATE_WEB__TOKENS"):
        Access(WebSettings(address=address))


@pytest.mark.parametrize("how", [{"tokens": TOKENS}, {**PROXY, "proxy_roles": {"*": "read"}}])
def test_an_address_of_the_network_is_allowed_with_tokens_or_a_proxy(how: dict[str, Any]) -> None:
    Access(WebSettings(address="0.0.0.0:8090", **how))


@pytest.mark.parametrize("address", ["127.0.0.1:0", "127.9.9.9:1", "[::1]:8090", "localhost:8090"])
def test_this_machines_own_address_needs_no_authentication(address: str) -> None:
    Access(WebSettings(address=address))


def test_on_this_machine_a_viewer_without_tokens_may_do_everything(serve: Serve) -> None:
    assert serve().get("/").text.startswith("local True")


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"tokens": {"ann": {"token": "short", "role": "admin"}}}, "shorter than 24"),
        ({"tokens": {"a b": {"token": ADMIN, "role": "admin"}}}, "is not up to 64 letters"),
        ({"tokens": {"ann": {"token": ADMIN, "role": "root"}}}, "'read', 'operate' or 'admin'"),
        ({"tokens": {"a": TOKENS["ann"], "b": TOKENS["ann"]}}, "two names have the same token"),
        ({**PROXY}, "belong together"),
        ({**PROXY, "proxy_addresses": ["proxy"], "proxy_roles": {"*": "read"}}, "is not an address or a network"),
        ({"url": "https://floodgate.example.com/path"}, "is not a URL without a path"),
    ],
)
def test_a_wrong_setting_is_refused_without_naming_a_token(wrong: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why) as refused:
        WebSettings(**wrong)
    assert ADMIN not in "".join(str(each["msg"]) for each in refused.value.errors())  # type: ignore[attr-defined]


def test_tokens_do_not_appear_when_settings_are_printed() -> None:
    assert ADMIN not in repr(WebSettings.model_validate({"tokens": TOKENS}))


# Roles


def test_without_a_login_nothing_is_shown_or_done(client: WebClient) -> None:
    page = client.get("/?q=1")
    assert (page.status, page.headers["Location"]) == (303, "/login?next=%2F%3Fq%3D1")
    assert client.send("GET", "/endless").status == 401
    assert client.post("/act", {"what": "x"}).status == 401
    assert client.send("DELETE", "/").status == 405
    assert DONE == []


def test_health_is_answered_to_everybody(client: WebClient) -> None:
    assert client.get("/health").text == "alive"


@pytest.mark.parametrize("path", ["//", "/%2e/", "/health/..", "/login/../act", "/static/../act", "/static/%2e%2e/act"])
def test_no_spelling_of_a_path_leads_around_the_login(client: WebClient, path: str) -> None:
    assert client.get(path).status in (303, 404)


@pytest.mark.parametrize(
    ("token", "name", "sees", "acts"),
    [(READ, "rita", False, False), (OPERATE, "otto", False, True), (ADMIN, "ann", True, True)],
)
def test_a_role_decides_about_texts_and_actions(
    client: WebClient, token: str, name: str, sees: bool, acts: bool
) -> None:
    assert client.log_in(token).status == 303
    page = client.get("/")
    assert page.text.startswith(f"{name} {sees}")
    assert client.post("/act", {"csrf_token": page.csrf_token, "what": name}).status == (200 if acts else 403)
    assert ([name] if acts else []) == DONE


# The proxy


@contextmanager
def _behind_proxy(serve: Serve, **settings: Any) -> Iterator[WebClient]:
    yield serve(**{**PROXY, "proxy_roles": {"ann": "admin", "*": "read"}, **settings})


def test_the_proxys_header_names_the_viewer(serve: Serve) -> None:
    with _behind_proxy(serve) as client:
        assert client.get("/", X_Forwarded_User="ann").text.startswith("ann True")
        assert client.get("/", X_Forwarded_User="bob").text.startswith("bob False")
        assert client.get("/").status == 403


@pytest.mark.parametrize("name", ["", " ", "*", "a" * 65, "a\tb"])
def test_a_header_that_names_nobody_lets_nobody_in(serve: Serve, name: str) -> None:
    with _behind_proxy(serve) as client:
        assert client.get("/", X_Forwarded_User=name).status == 403


def test_the_header_is_ignored_from_another_address(serve: Serve) -> None:
    with _behind_proxy(serve, proxy_addresses=["192.0.2.0/24"]) as client:
        assert client.get("/", X_Forwarded_User="ann").status == 403


def test_a_header_given_twice_names_nobody(serve: Serve) -> None:
    with _behind_proxy(serve) as client, socket.create_connection((client.host, client.port)) as raw:
        lines = [f"Host: {client.host}", "X-Forwarded-User: ann", "X-Forwarded-User: bob", "Connection: close"]
        raw.sendall("\r\n".join(["GET / HTTP/1.1", *lines, "", ""]).encode())
        assert b" 403 " in raw.makefile("rb").readline()


def test_people_without_a_role_are_refused(serve: Serve) -> None:
    with _behind_proxy(serve, proxy_roles={"ann": "admin"}) as client:
        assert client.get("/", X_Forwarded_User="bob").status == 403


def test_the_csrf_token_of_one_person_behind_a_proxy_is_not_that_of_another(serve: Serve) -> None:
    with _behind_proxy(serve, proxy_roles={"*": "operate"}) as client:
        token = client.get("/", X_Forwarded_User="bob").csrf_token
        form = {"csrf_token": token, "what": "x"}
        assert client.post("/act", form, X_Forwarded_User="ann").status == 403
        assert client.post("/act", form, X_Forwarded_User="bob").status == 200


# CSRF and DNS rebinding


def test_a_form_without_the_right_csrf_token_does_nothing(client: WebClient) -> None:
    client.log_in(OPERATE)
    for token in ("", "x", "é", client.get("/login").csrf_token):
        assert client.post("/act", {"csrf_token": token, "what": "x"}).status == 403
    assert client.post("/act", {"what": "x"}).status == 403
    assert DONE == []


def test_the_csrf_token_of_another_session_does_nothing(client: WebClient) -> None:
    client.log_in(OPERATE)
    attacker = WebClient(client.host, client.port)
    attacker.log_in(READ)
    assert client.post("/act", {"csrf_token": attacker.get("/").csrf_token, "what": "x"}).status == 403


def test_the_login_page_does_not_reveal_the_csrf_token_of_others(client: WebClient) -> None:
    client.log_in(OPERATE)
    own = client.get("/").csrf_token
    attacker = WebClient(client.host, client.port)
    for session in (client.cookies["floodgate"], "viewer:otto", f"session:{client.cookies['floodgate']}"):
        attacker.cookies = {"floodgate": session}
        assert attacker.get("/login").csrf_token != own


@pytest.mark.parametrize(
    "origin", [None, "null", "", "http://evil.example", "https://{host}:{port}", "http://{host}:1", "http://{host}"]
)
def test_a_form_of_another_site_does_nothing_even_with_the_token(client: WebClient, origin: str | None) -> None:
    client.log_in(OPERATE)
    form = f"csrf_token={client.get('/').csrf_token}&what=x".encode()
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    if origin is not None:
        headers["Origin"] = origin.format(host=client.host, port=client.port)
    assert client.send("POST", "/act", form, headers).status == 403
    assert DONE == []


def test_without_tokens_a_form_needs_the_csrf_token_and_the_origin_too(serve: Serve) -> None:
    client = serve()
    token = client.get("/").csrf_token
    assert client.post("/act", {"what": "x"}).status == 403
    assert client.post("/act", {"csrf_token": token, "what": "x"}, Origin="http://evil.example").status == 403
    assert client.post("/act", {"csrf_token": token, "what": "x"}).status == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "[::1", "10.0.0.1"])
def test_a_name_that_was_rebound_to_this_machine_is_not_answered(serve: Serve, host: str) -> None:
    assert serve().get("/", Host=host).status in (400, 421)


@pytest.mark.parametrize("host", ["localhost", "localhost:9999", "127.0.0.1", "[::1]:80"])
def test_names_of_this_machine_are_answered_on_every_port(serve: Serve, host: str) -> None:
    assert serve().get("/", Host=host).status == 200


def test_the_url_of_a_proxy_is_the_only_origin_of_its_host(serve: Serve) -> None:
    client = serve(tokens=TOKENS, url="https://floodgate.example")
    name = "__Host-floodgate"
    form = client.get("/login", Host="floodgate.example")
    assert "Secure" in form.headers["Set-Cookie"]
    sent = {"csrf_token": form.csrf_token, "token": ADMIN}
    plain = client.post("/login", sent, Host="floodgate.example", Origin="http://floodgate.example")
    assert plain.status == 403
    assert client.post("/login", sent, Host="floodgate.example", Origin="https://floodgate.example").status == 303
    assert client.get("/", Host="floodgate.example").text.startswith("ann") and name in client.cookies
    assert client.get("/", Host="other.example").status == 421


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("application/json", b'{"what": "x"}', 415),
        ("text/plain", b"what=x", 415),
        ("multipart/form-data; boundary=x", b"--x--", 415),
        ("application/x-www-form-urlencoded", b"a=" + b"x" * 140_000, 413),
        ("application/x-www-form-urlencoded", b"&".join([b"a=1"] * 3000), 400),
        ("application/x-www-form-urlencoded", b"a=\xff", 400),
    ],
)
def test_what_is_not_a_small_form_is_refused(client: WebClient, kind: str, body: bytes, status: int) -> None:
    client.log_in(OPERATE)
    sent = {"Origin": client.origin, "Content-Type": kind}
    assert client.send("POST", "/act", body, sent).status == status


# WebSessions


def test_the_cookie_is_for_this_site_only_and_hidden_from_scripts(client: WebClient) -> None:
    cookie = client.log_in(ADMIN).headers["Set-Cookie"]
    assert {"HttpOnly", "SameSite=lax", "Path=/", f"Max-Age={int(LIFE.total_seconds())}"} <= set(cookie.split("; "))
    assert "Secure" not in cookie and ADMIN not in cookie


def test_a_session_id_that_was_known_before_the_login_is_worth_nothing(client: WebClient) -> None:
    planted = "an-id-the-attacker-knows"
    client.cookies = {"floodgate": planted}
    assert client.log_in(ADMIN).status == 303
    assert client.cookies["floodgate"] != planted
    attacker = WebClient(client.host, client.port, {"floodgate": planted})
    assert attacker.get("/").status == 303


def test_a_new_login_ends_the_session_before_it(client: WebClient) -> None:
    client.log_in(ADMIN)
    before = client.cookies["floodgate"]
    client.log_in(READ)
    assert WebClient(client.host, client.port, {"floodgate": before}).get("/").status == 303


def test_logging_out_ends_the_session_at_the_server(client: WebClient) -> None:
    client.log_in(READ)
    stolen = dict(client.cookies)
    assert client.post("/logout", {"csrf_token": client.get("/").csrf_token}).status == 303
    assert client.cookies == {}
    assert WebClient(client.host, client.port, stolen).get("/").status == 303


def test_nobody_can_be_logged_out_by_another_site(client: WebClient) -> None:
    client.log_in(READ)
    assert client.get("/logout").status == 405
    assert client.post("/logout", {}).status == 403
    assert client.get("/").status == 200


def test_a_session_ends_with_its_time(serve: Serve) -> None:
    now = [0.0]
    client = serve(WebSessions(lambda: now[0]), tokens=TOKENS)
    client.log_in(READ)
    now[0] = LIFE.total_seconds() - 1
    assert client.get("/").status == 200
    now[0] += 1
    assert client.get("/").status == 303


def test_the_oldest_session_makes_room_when_there_are_too_many() -> None:
    sessions = WebSessions(lambda: 0.0)
    person = Access(WebSettings())._person({"type": "http"}, "")
    assert person is not None
    names = [sessions.begin(person) for _ in range(MOST_SESSIONS + 1)]
    assert sessions.person(names[0]) is None
    assert sessions.person(names[1]) == sessions.person(names[-1]) == person


def test_a_stream_ends_when_its_viewer_logs_out(client: WebClient) -> None:
    client.log_in(READ)
    token = client.get("/").csrf_token
    connection = http.client.HTTPConnection(client.host, client.port, timeout=20)
    connection.request("GET", "/endless", headers={"Cookie": f"floodgate={client.cookies['floodgate']}"})
    stream = connection.getresponse()
    assert stream.readline() == b"data: secret\n"
    client.post("/logout", {"csrf_token": token})
    stream.read()  # returns: the stream has ended
    connection.close()


# The login


def test_guessing_is_slowed_down_and_the_right_token_does_not_help(guessed: WebClient) -> None:
    for _ in range(PER_ADDRESS):
        assert guessed.log_in("a-guess").status == 401
    refused = guessed.log_in(ADMIN)
    assert refused.status == 429
    assert 0 < int(refused.headers["Retry-After"]) <= 60


def test_a_guess_is_not_told_how_close_it_was(guessed: WebClient) -> None:
    csrf = guessed.get("/login").csrf_token
    guesses = [ADMIN[:-1], ADMIN.upper(), "", "x" * 60_000]
    answers = [guessed.post("/login", {"csrf_token": csrf, "token": guess}) for guess in guesses]
    assert {answer.status for answer in answers} == {401}
    assert len({answer.text for answer in answers}) == 1


@pytest.mark.parametrize(
    "after",
    ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:alert(1)", "/\t/evil.example", "x"],
)
def test_a_login_never_leads_to_another_site(client: WebClient, after: str) -> None:
    assert client.log_in(READ, after).headers["Location"] == "/"


def test_a_login_leads_to_the_page_that_was_wanted(client: WebClient) -> None:
    assert client.log_in(READ, "/jobs?bot=news").headers["Location"] == "/jobs?bot=news"


@pytest.mark.parametrize("text", ['"><script>alert(1)</script>', "'><img src=x onerror=alert(1)>"])
def test_the_login_form_escapes_what_it_repeats(guessed: WebClient, text: str) -> None:
    page = guessed.post("/login", {"csrf_token": guessed.get("/login").csrf_token, "token": text, "next": f"/{text}"})
    assert page.status == 401
    assert text not in page.text and "<script>alert" not in page.text and "<img" not in page.text


# Headers


@pytest.mark.parametrize("path", ["/", "/login", "/health", "/nowhere", "/broken", "/endless-not", "/static/x"])
def test_every_response_has_the_headers_that_browsers_obey(client: WebClient, path: str) -> None:
    client.log_in(READ)
    headers = client.get(path).headers
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "form-action 'self'" in policy
    assert "unsafe" not in policy and "*" not in policy and "data:" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Referrer-Policy"] == "same-origin"
    assert headers["Cache-Control"] == ("no-cache" if path.startswith("/static/") else "no-store")


def test_refusals_have_the_headers_too(client: WebClient) -> None:
    for answer in (client.get("/"), client.get("/", Host="[x"), client.post("/act"), client.send("PUT", "/")):
        if answer.status != 400:  # refused by the HTTP parser, before any application
            assert answer.headers["Cache-Control"] == "no-store"
            assert "Content-Security-Policy" in answer.headers


def test_failed_logins_of_all_addresses_together_are_limited() -> None:
    now = [100.0]
    attempts = LoginAttempts(lambda: now[0])
    for number in range(IN_ALL):
        attempts.failed(ip_address(f"2001:db8:0:{number:x}::1"))
    assert attempts.wait_seconds(ip_address("192.0.2.1")) == 60
    now[0] += 60
    assert attempts.wait_seconds(ip_address("192.0.2.1")) == 0


def test_the_addresses_of_one_ipv6_network_count_as_one() -> None:
    attempts = LoginAttempts(lambda: 0.0)
    for number in range(PER_ADDRESS):
        attempts.failed(ip_address(f"2001:db8::{number}"))
    assert attempts.wait_seconds(ip_address("2001:db8::ffff")) > 0
    assert attempts.wait_seconds(ip_address("2001:db8:0:1::1")) == 0
