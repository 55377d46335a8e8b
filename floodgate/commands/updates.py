"""``floodgate updates``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from floodgate.broker.errors import SettingsError

if TYPE_CHECKING:
    from floodgate.broker.settings.model import Settings


def updates(
    mode: Annotated[Literal["polling", "webhook"], typer.Option(help="How to receive the updates.")] = "polling",
    host: Annotated[
        str | None, typer.Option(help="Webhook: address to listen on. Defaults to FLOODGATE_UPDATES__HOST.")
    ] = None,
    port: Annotated[int | None, typer.Option(help="Webhook: port to listen on; 0 takes a free one.")] = None,
    webhook_url: Annotated[
        str | None, typer.Option(help="Webhook: public root URL. Defaults to FLOODGATE_UPDATES__WEBHOOK_URL.")
    ] = None,
) -> None:
    """Receive the bots' updates and put them into RabbitMQ for handler workers, until SIGTERM.

    Start two: one is active, the other takes over within seconds. Polling deletes a webhook, and webhook mode sets it;
    changing the mode loses no updates.

    Example: floodgate updates --mode polling
    """
    from floodgate.broker.process.logs import configure_logging
    from floodgate.broker.settings.model import load_settings
    from floodgate.producer.updates.process import Mode, run_receiver

    settings = load_settings()
    settings.require_bots()
    configure_logging(settings)
    given = {"host": host, "port": port, "webhook_url": webhook_url}
    run_receiver(_with(settings, given), Mode(mode), ready=lambda line: print(line, flush=True))


def _with(settings: Settings, given: dict[str, str | int | None]) -> Settings:
    """Return the settings with the command line's values, validated in the same way."""
    from pydantic import ValidationError

    from floodgate.broker.settings.updates import UpdateSettings

    said = {name: value for name, value in given.items() if value is not None}
    try:
        updates = UpdateSettings.model_validate({**settings.updates.model_dump(), **said})
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        option = "--" + str(first["loc"][0]).replace("_", "-")
        raise SettingsError(f"{option} {first['msg'].removeprefix('Value error, ')}.") from None
    return settings.model_copy(update={"updates": updates})
