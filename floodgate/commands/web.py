"""``floodgate web``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from floodgate.broker.errors import SettingsError

if TYPE_CHECKING:
    from floodgate.broker.settings.web import WebSettings


def web(
    address: Annotated[
        str | None, typer.Option(help="Address and port to listen on. Defaults to FLOODGATE_WEB__ADDRESS.")
    ] = None,
) -> None:
    """Serve the operator's web pages, until SIGTERM: what waits and why, dead letters, campaigns.

    Example: floodgate web --address 127.0.0.1:8090
    """
    from floodgate.broker.process.logs import configure_logging
    from floodgate.broker.settings.model import load_settings
    from floodgate.web.server import run_web

    settings = load_settings()
    settings.require_bots()
    if address is not None:
        settings = settings.model_copy(update={"web": _at(settings.web, address)})
    configure_logging(settings)
    run_web(settings, ready=lambda url: print(f"The pages are ready at {url}", flush=True))


def _at(settings: WebSettings, address: str) -> WebSettings:
    """Return the settings with the command line's address, validated in the same way."""
    from pydantic import ValidationError

    try:
        return settings.model_validate({**settings.model_dump(), "address": address})
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise SettingsError(f"--address {first['msg'].removeprefix('Value error, ')}.") from None
