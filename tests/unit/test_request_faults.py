"""A broken call's description never contains its URL: that has the token, and descriptions go to dead letters."""

from __future__ import annotations

import errno

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey

from floodgate.actors.request import _describe

URL = "https://api.telegram.org/bot123:SECRET/sendMessage"
KEY = ConnectionKey("api.telegram.org", 443, True, True, None, None, None)


@pytest.mark.parametrize(
    ("error", "wording"),
    [
        # aiohttp's own words in place of the operating system's.
        (
            aiohttp.ClientOSError(errno.ECONNRESET, f"Can not write request body for {URL}"),
            "ClientOSError (Connection reset by peer)",
        ),
        (aiohttp.ClientOSError(None, f"Can not write request body for {URL}"), "ClientOSError"),
        (aiohttp.InvalidURL(URL), "InvalidURL"),
        (aiohttp.ServerDisconnectedError(), "ServerDisconnectedError"),
        (
            aiohttp.ClientConnectorError(KEY, OSError(errno.ECONNREFUSED, "Connection refused")),
            "ClientConnectorError (Connection refused)",
        ),
        (
            ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
            "ConnectionResetError (Connection reset by peer)",
        ),
    ],
)
def test_a_request_error_is_described_without_the_url(error: aiohttp.ClientError | OSError, wording: str) -> None:
    assert _describe(error) == wording
