"""An HTTP client that sends exactly what a test says, as an attacker would, and a server like `floodgate web`."""

from __future__ import annotations

import contextlib
import html
import http.client
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlencode

import uvicorn

from floodgate.producer.http_protocol import server_config
from floodgate.producer.listening import listen

ANSWER_SECONDS: Final = 30.0
CSRF_FIELD: Final = re.compile(r'name="csrf_token" value="([^"]*)"')


@dataclass(frozen=True, slots=True)
class Answer:
    """A response."""

    status: int
    headers: http.client.HTTPMessage
    text: str

    @property
    def csrf_token(self) -> str:
        """The token in the first form of the page; empty if there is none."""
        found = CSRF_FIELD.search(self.text)
        return html.unescape(found[1]) if found else ""


@dataclass
class WebClient:
    """Sends requests from one connection each, and keeps cookies by name as a browser does."""

    host: str
    port: int
    cookies: dict[str, str] = field(default_factory=dict)

    @property
    def origin(self) -> str:
        return f"http://{self.host}:{self.port}"

    def get(self, path: str, **headers: str) -> Answer:
        return self.send("GET", path, headers={"Accept": "text/html", **_named(headers)})

    def post(self, path: str, form: Mapping[str, str] | None = None, **headers: str) -> Answer:
        """Sends a form as a page of the server would; headers are overridden by name, with `_` for `-`."""
        sent = {"Origin": self.origin, "Content-Type": "application/x-www-form-urlencoded", **_named(headers)}
        return self.send("POST", path, urlencode(form or {}).encode(), sent)

    def send(self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Answer:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=ANSWER_SECONDS)
        try:
            wanted = {"Host": f"{self.host}:{self.port}", **(headers or {})}
            if self.cookies:
                wanted.setdefault("Cookie", "; ".join(f"{name}={value}" for name, value in self.cookies.items()))
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in {"Content-Length": str(len(body)), **wanted}.items():
                connection.putheader(name, value)
            connection.endheaders(body)
            response = connection.getresponse()
            answer = Answer(response.status, response.headers, response.read().decode(errors="replace"))
        finally:
            connection.close()
        self._keep_cookies(answer)
        return answer

    def log_in(self, token: str, after: str = "/") -> Answer:
        """Fills in the login form."""
        page = self.get("/login")
        return self.post("/login", {"csrf_token": page.csrf_token, "token": token, "next": after})

    def _keep_cookies(self, answer: Answer) -> None:
        for line in answer.headers.get_all("Set-Cookie", []):
            name, _, value = line.partition(";")[0].partition("=")
            self.cookies[name] = value
            if "Max-Age=0" in line:
                del self.cookies[name]


def _named(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


@contextlib.contextmanager
def serving(app: Any, lifespan: str = "off") -> Iterator[WebClient]:
    """Serves an application on a free port, as `floodgate web` does."""
    listener = listen("127.0.0.1", 0, "the port")
    server = uvicorn.Server(server_config(app, 50, lifespan=lifespan, timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, args=([listener],), name="web", daemon=True)
    thread.start()
    try:
        yield WebClient("127.0.0.1", listener.getsockname()[1])
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
