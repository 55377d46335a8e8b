"""Checks the headers Host and Origin.

Host guards against DNS rebinding: a site may let its own name point to 127.0.0.1, and would then be allowed to read the
pages of whoever visits it. So without authentication only names of this machine are answered. Origin guards against
forms of other sites: a browser sends it with every POST.
"""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit

from floodgate.broker.settings.web import WebSettings


class Origins:
    """The hosts and origins that are expected. Immutable."""

    def __init__(self, settings: WebSettings) -> None:
        self._url = settings.url
        self._url_host = _hostname(urlsplit(settings.url).netloc)
        # With authentication and no URL, any name of the machine will do: no cookie of ours is sent to another site's.
        self._any_host = settings.authenticates and not settings.local and not settings.url
        self._hosts = {"localhost", settings.host, self._url_host}

    def expects_host(self, host: str) -> bool:
        """Whether a Host header is expected. The port is free: an SSH tunnel has one of its own."""
        name = _hostname(host)
        return bool(name) and (self._any_host or name in self._hosts or _is_loopback(name))

    def expects_origin(self, origin: str | None, host: str) -> bool:
        """Whether a POST to a host comes from a page of ours."""
        if origin is None:
            return False
        if self._url.startswith("https:") and _hostname(host) == self._url_host:
            return origin == self._url
        parts = urlsplit(origin)
        plain = parts.scheme == "http" or self._any_host  # a proxy may serve HTTPS without our knowing
        return plain and parts.scheme in ("http", "https") and bool(host) and parts.netloc == host


def _hostname(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:  # brackets that do not match
        return ""


def _is_loopback(name: str) -> bool:
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False
