"""Assembles a handler worker from the user's handler, the process's broker and store, and the path of replies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pydantic import SecretStr

from floodgate.actors.updates.application import AnyApplication, ApplicationHandler
from floodgate.actors.updates.callback_data import share_callback_data
from floodgate.actors.updates.handler import Handler
from floodgate.actors.updates.handling import Handling
from floodgate.broker.errors import HandlersStoppedError, SettingsError
from floodgate.broker.settings.model import TEST_SUFFIX, Settings
from floodgate.broker.state.handled import AwaitedHandled
from floodgate.broker.state.stores import open_handled
from floodgate.broker.worker.dramatiq_broker import FloodgateBroker
from floodgate.producer.async_client import AsyncClient
from floodgate.updates.campaign_updates import CampaignUpdates
from floodgate.updates.function import FunctionHandler, OnUpdate
from floodgate.updates.replies import BotApiRoots, PipelineRequest
from floodgate.updates.target import Target


@dataclass(frozen=True, slots=True)
class Assignment:
    """The task of a handler worker: the bots, the target that handles their updates, and its ``module:name`` path."""

    path: str
    target: Target
    bots: tuple[str, ...]


def assign(path: str, target: Target, settings: Settings) -> Assignment:
    """Assign bots to a target: to an Application its own bot, to a function all bots.

    Raises:
        SettingsError: The Application's bot is not configured.
    """
    if isinstance(target, OnUpdate):
        return Assignment(path, target, tuple(sorted(settings.tokens)))
    token = target.bot.token
    tokens = {name: its.get_secret_value().removesuffix(TEST_SUFFIX) for name, its in settings.tokens.items()}
    bots = tuple(name for name, its in tokens.items() if its == token.removesuffix(TEST_SUFFIX))
    if not bots:
        raise SettingsError(
            f"{path} has the token of a bot that is not configured ({token.partition(':')[0]}:…): build it with a "
            f"token from FLOODGATE_BOT_TOKEN or FLOODGATE_BOTS (configured: {', '.join(sorted(settings.tokens))})."
        )
    return Assignment(path, target, bots[:1])


def compose(
    assignment: Assignment, broker: FloodgateBroker, on_stopped: Callable[[HandlersStoppedError], None]
) -> Handling:
    """Build the handling of a process's updates, without starting it."""
    ledger = AwaitedHandled(open_handled(broker.settings), broker.state_thread)
    handler = CampaignUpdates(_handler(assignment, broker), broker.settings, broker.connections)
    return Handling(broker, handler, ledger, on_stopped)


def _handler(assignment: Assignment, broker: FloodgateBroker) -> Handler:
    target = assignment.target
    if isinstance(target, OnUpdate):
        return FunctionHandler(assignment.path, target, broker.settings, broker.connections)
    (bot,) = assignment.bots
    client = AsyncClient(broker.settings, bot=bot, connections=broker.connections)
    callback_data = share_callback_data(assignment.path, target)
    before_call = callback_data.save if callback_data is not None else None
    request = PipelineRequest(broker.settings, bot, client, _theirs(target), before_call)
    allowed = broker.settings.updates.allowed_updates
    return ApplicationHandler(assignment.path, target, request, allowed, callback_data)


def _theirs(application: AnyApplication) -> BotApiRoots:
    return BotApiRoots(SecretStr(application.bot.base_url), SecretStr(application.bot.base_file_url))
