"""The pages to log in and to log out.

The id of a session is new at each login, so an id that somebody else has put into the browser is worth nothing.
"""

from __future__ import annotations

import logging
import math
from http import HTTPStatus
from typing import Final

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from floodgate.broker.process.metrics import LOGINS_REFUSED, Metrics
from floodgate.broker.settings.web import WebSettings
from floodgate.web.access.attempts import LoginAttempts
from floodgate.web.access.sessions import LIFE, WebSessions, new_id
from floodgate.web.access.tokens import Tokens
from floodgate.web.access.viewers import client_address
from floodgate.web.own_path import own_path
from floodgate.web.rendering import environment

logger = logging.getLogger("floodgate.web")

LOGIN: Final = "/login"
LOGOUT: Final = "/logout"
_UNKNOWN: Final = "That token is not known here."


class Login:
    """Logs people in and out by cookie."""

    def __init__(self, settings: WebSettings, sessions: WebSessions, metrics: Metrics) -> None:
        self._sessions = sessions
        self._metrics = metrics
        self._tokens = Tokens(settings.tokens)
        self._attempts = LoginAttempts()
        self.enabled = bool(settings.tokens)
        self._secure = settings.url.startswith("https:")
        # The prefix makes browsers refuse the cookie from other hosts of the domain and over plain HTTP.
        self.cookie = "__Host-floodgate" if self._secure else "floodgate"

    @property
    def routes(self) -> list[Route]:
        """The routes of both pages."""
        if not self.enabled:
            return []
        return [
            Route(LOGIN, self._show, methods=["GET"], name="login"),
            Route(LOGIN, self._log_in, methods=["POST"]),
            Route(LOGOUT, self._log_out, methods=["POST"], name="logout"),
        ]

    async def _show(self, request: Request) -> Response:
        return self._form(request, HTTPStatus.OK, request.query_params.get("next", ""))

    async def _log_in(self, request: Request) -> Response:
        form = await request.form()
        token, after = str(form.get("token", "")), str(form.get("next", ""))
        address = client_address(request.scope)
        if wait := self._attempts.wait_seconds(address):
            self._metrics.count(LOGINS_REFUSED, "attempts")
            return self._refuse_for_now(request, wait, after)
        person = self._tokens.holder(token.strip())
        if person is None:
            self._attempts.failed(address)
            self._metrics.count(LOGINS_REFUSED, "token")
            logger.warning("a login from %s failed: the token is unknown", address)
            return self._form(request, HTTPStatus.UNAUTHORIZED, after, _UNKNOWN)
        logger.info("%s logged in from %s with the role %s", person.name, address, person.role)
        self._sessions.end(request.cookies.get(self.cookie, ""))
        response = RedirectResponse(own_path(after), HTTPStatus.SEE_OTHER)
        self._set_cookie(response, self._sessions.begin(person), int(LIFE.total_seconds()))
        return response

    async def _log_out(self, request: Request) -> Response:
        self._sessions.end(request.cookies.get(self.cookie, ""))
        response = RedirectResponse(LOGIN, HTTPStatus.SEE_OTHER)
        response.delete_cookie(self.cookie, path="/", secure=self._secure, httponly=True, samesite="lax")
        return response

    def _refuse_for_now(self, request: Request, wait: float, after: str) -> Response:
        seconds = math.ceil(wait)
        response = self._form(
            request, HTTPStatus.TOO_MANY_REQUESTS, after, f"Too many attempts: try again in {seconds} s."
        )
        response.headers["Retry-After"] = str(seconds)
        return response

    def _form(self, request: Request, status: HTTPStatus, after: str, error: str = "") -> Response:
        """Show the form. Its CSRF token belongs to a cookie that names no session, and that a login replaces."""
        given = request.cookies.get(self.cookie)
        name = given or new_id()
        text = (
            environment()
            .get_template("login.html")
            .render(csrf_token=self._sessions.csrf_token(f"login:{name}"), next=own_path(after), error=error)
        )
        response = HTMLResponse(text, status)
        if not given:
            self._set_cookie(response, name, None)
        return response

    def _set_cookie(self, response: Response, value: str, seconds: int | None) -> None:
        response.set_cookie(
            self.cookie, value, max_age=seconds, path="/", secure=self._secure, httponly=True, samesite="lax"
        )
