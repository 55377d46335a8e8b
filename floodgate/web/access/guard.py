"""Every request passes here first, and every response leaves through here."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final
from urllib.parse import quote

from starlette.datastructures import FormData
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from floodgate.broker.errors import SettingsError
from floodgate.broker.process.metrics import Metrics
from floodgate.broker.settings.web import WebSettings
from floodgate.web.access.bodies import FormError, read_form
from floodgate.web.access.headers import with_headers
from floodgate.web.access.login import LOGIN, LOGOUT, Login
from floodgate.web.access.origins import Origins
from floodgate.web.access.sessions import WebSessions
from floodgate.web.access.viewers import LOCAL, Person, TrustedProxy
from floodgate.web.rendering import page

PUBLIC: Final = frozenset({"/health", LOGIN})
STATIC: Final = "/static/"
SAFE_METHODS: Final = frozenset({"GET", "HEAD"})
_UNEXPECTED_HOST: Final = "This host name is not expected here: set FLOODGATE_WEB__URL to the URL of the pages."
_OUT_OF_DATE: Final = "This form is out of date: go back, reload the page and try again. Nothing was done."


def require_authentication(settings: WebSettings) -> None:
    """Refuse to show the pages to a network without asking who is there.

    Raises:
        SettingsError: the address can be reached from other machines, and neither tokens nor a proxy are set.
    """
    if not settings.local and not settings.authenticates:
        raise SettingsError(
            f"The web pages would be open to everybody who can reach {settings.address}: set FLOODGATE_WEB__TOKENS or "
            "FLOODGATE_WEB__PROXY_HEADER, or listen on 127.0.0.1."
        )


class SessionEndedError(OSError):
    """A stream outlived its session."""


class Access:
    """Access control of one server. Belongs to the event loop.

    Args:
        metrics: where refused logins are counted; None counts them for nobody.

    Raises:
        SettingsError: see :func:`require_authentication`.
    """

    def __init__(
        self, settings: WebSettings, sessions: WebSessions | None = None, metrics: Metrics | None = None
    ) -> None:
        require_authentication(settings)
        self._open_to_local = not settings.authenticates
        self._sessions = sessions or WebSessions()
        self._origins = Origins(settings)
        self._proxy = TrustedProxy(settings)
        self._login = Login(settings, self._sessions, metrics or Metrics())

    @property
    def routes(self) -> list[Route]:
        """The routes of the login, which the application has to serve."""
        return self._login.routes

    def guard(self, app: ASGIApp) -> ASGIApp:
        """Return the application behind access control."""

        async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http":
                await self._serve(app, scope, receive, with_headers(send, scope["path"]))
            elif scope["type"] == "lifespan":
                await app(scope, receive, send)

        return guarded

    async def _serve(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        session = request.cookies.get(self._login.cookie, "")
        person = self._person(scope, session)
        owner = self._owner_of_forms(scope["path"], person, session)
        scope.setdefault("state", {}).update(
            viewer=person,
            csrf_token=self._sessions.csrf_token(owner),
            can_log_out=self._sessions.person(session) is not None,
        )
        try:
            refusal, receive = await self._check(request, receive, person, owner)
        except ClientDisconnect:
            return
        if refusal is not None:
            await refusal(scope, receive, send)
        elif person is None or not self._sessions.person(session):
            await app(scope, receive, send)
        else:
            await self._while_logged_in(app, session, scope, receive, send)

    def _person(self, scope: Scope, session: str) -> Person | None:
        if self._open_to_local:
            return LOCAL
        return self._sessions.person(session) or self._proxy.person(scope)

    def _owner_of_forms(self, path: str, person: Person | None, session: str) -> str:
        """Return what the CSRF tokens of a request belong to. The prefixes keep the kinds apart."""
        if path == LOGIN:
            return f"login:{session}"
        if self._sessions.person(session):
            return f"session:{session}"
        return f"viewer:{person.name if person else ''}"

    async def _check(
        self, request: Request, receive: Receive, person: Person | None, owner: str
    ) -> tuple[Response | None, Receive]:
        """Return why a request is refused, if it is, and its body."""
        host = request.headers.get("host", "")
        if not self._origins.expects_host(host):
            return _plain(421, _UNEXPECTED_HOST), receive
        path = request.scope["path"]
        if request.method in SAFE_METHODS:
            public = path in PUBLIC or path.startswith(STATIC)
            return None if person or public else self._ask_to_log_in(request), receive
        if request.method != "POST":
            return _plain(405, "Only GET, HEAD and POST are known here."), receive
        if person is None and path != LOGIN:
            return self._ask_to_log_in(request), receive
        if not self._origins.expects_origin(request.headers.get("origin"), host):
            return _refuse(request, 403, "This form was sent by another site. Nothing was done."), receive
        try:
            form, receive = await read_form(request.scope, receive)
        except FormError as error:
            return _refuse(request, error.status_code, f"{error} Nothing was done."), receive
        return self._check_form(request, form, person, owner), receive

    def _check_form(self, request: Request, form: FormData, person: Person | None, owner: str) -> Response | None:
        if not self._sessions.is_csrf_token(owner, str(form.get("csrf_token", ""))):
            return _refuse(request, 403, _OUT_OF_DATE)
        if person and not person.acts and request.scope["path"] not in (LOGIN, LOGOUT):
            return _refuse(request, 403, "Your role is `read`, which may not do this. Nothing was done.")
        return None

    def _ask_to_log_in(self, request: Request) -> Response:
        wants_page = request.method in SAFE_METHODS and "text/html" in request.headers.get("accept", "")
        if not self._login.enabled:
            return _plain(403, "The proxy names nobody who may see these pages.")
        if not wants_page:
            return _plain(401, f"Log in at {LOGIN}.")
        query = request.scope["query_string"].decode("latin-1")
        wanted = quote(request.scope["path"]) + (f"?{query}" if query else "")
        return RedirectResponse(f"{LOGIN}?next={quote(wanted, safe='')}", HTTPStatus.SEE_OTHER)

    async def _while_logged_in(self, app: ASGIApp, session: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request. A stream ends with its first event after the session has."""
        ended = False

        async def send_if_logged_in(message: Message) -> None:
            nonlocal ended
            streams = message["type"] == "http.response.body" and message.get("more_body", False)
            if ended or (streams and self._sessions.person(session) is None):
                if not ended:
                    ended = True
                    await send({"type": "http.response.body", "body": b"", "more_body": False})
                raise SessionEndedError
            await send(message)

        try:
            await app(scope, receive, send_if_logged_in)
        except (SessionEndedError, ClientDisconnect):
            if not ended:
                raise


def _refuse(request: Request, status_code: int, what: str) -> Response:
    if request.state.viewer is None:
        return _plain(status_code, what)
    return page(request, "error.html", status_code, what=what)


def _plain(status_code: int, what: str) -> Response:
    return PlainTextResponse(f"{what}\n", status_code)
