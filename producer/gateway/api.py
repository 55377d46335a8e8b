"""What the gateway's own APIs share: authentication, bounded bodies and the form of errors.

A caller sends its token or gateway key as ``Authorization: Bearer …``.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Annotated, Any, Final, Literal

from fastapi import Depends, Header, Request, Security
from fastapi.responses import Response
from fastapi.routing import APIRoute
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel

from floodgate.producer.gateway.answers import UNAUTHORIZED, RefusalError
from floodgate.producer.gateway.request_body import whole
from floodgate.producer.gateway.state import GatewayState


class ErrorResponse(BaseModel):
    """An error in the Bot API's form."""

    ok: Literal[False] = False
    error_code: int
    description: str
    parameters: dict[str, Any] | None = None


def error_responses(texts: Mapping[int, str], *codes: int) -> dict[int | str, dict[str, Any]]:
    """Describe error responses for OpenAPI. ``texts`` are the descriptions by code."""
    return {code: {"model": ErrorResponse, "description": texts[code]} for code in codes}


class BoundedRoute(APIRoute):
    """Reads the body within bounds, before FastAPI reads it without any."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return FastAPI's handler, preceded by a bounded read of the body."""
        handle = super().get_route_handler()

        async def read_first(request: Request) -> Response:
            # Starlette's private cache of a body that was read; tests/acceptance/gateway fails if that changes.
            request._body = await whole(request, gateway_of(request).settings.gateway)
            return await handle(request)

        return read_first


_bearer: Final = HTTPBearer(auto_error=False, description="The bot's token, or a gateway key.")


def caller(
    request: Request,
    shown: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)],
    x_floodgate_bot: Annotated[str | None, Header(description="For keys of several bots.")] = None,
) -> str:
    """Authenticate the caller; return the bot that it may act as.

    Raises:
        RefusalError: the caller sent no secret, or a wrong one.
    """
    if shown is None:
        raise RefusalError(*UNAUTHORIZED)
    return gateway_of(request).callers.bot(shown.credentials, x_floodgate_bot)


Caller = Annotated[str, Depends(caller)]


def gateway_of(request: Request) -> GatewayState:
    """Return the state of the gateway that serves a request."""
    gateway: GatewayState = request.app.state.gateway
    return gateway
