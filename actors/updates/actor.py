"""The actor ``handle_update``. Importing this registers it with the process's broker, and does nothing else."""

from __future__ import annotations

from typing import Any

import dramatiq
from dramatiq.middleware import CurrentMessage

from floodgate.actors.updates.handling import Handling
from floodgate.broker.messages.update import UPDATE_ACTOR
from floodgate.broker.worker.queue_consumer import DeliveredMessage
from floodgate.broker.worker.setup import current_broker

_handling: list[Handling] = []  # one at most; written before the worker's first update


def use(handling: Handling) -> None:
    """Have this process's updates handled by it."""
    _handling[:] = [handling]


@dramatiq.actor(broker=current_broker(), actor_name=UPDATE_ACTOR, queue_name=UPDATE_ACTOR)
async def handle_update(update: dict[str, Any]) -> None:
    """Have ``update`` (see :mod:`floodgate.broker.messages.update`) handled."""
    message = CurrentMessage.get_current_message()
    assert isinstance(message, DeliveredMessage), "handle_update is run by a worker"
    (handling,) = _handling
    await current_broker().connections.io.join(handling.deliver(message))
