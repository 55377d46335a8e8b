"""The actor ``handle_update``. Importing this module registers it with the process's broker, and does nothing else."""

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
    """Set the object that handles this process's updates."""
    _handling[:] = [handling]


@dramatiq.actor(broker=current_broker(), actor_name=UPDATE_ACTOR, queue_name=UPDATE_ACTOR)
async def handle_update(update: dict[str, Any]) -> None:
    """Run the handlers for ``update`` (see :mod:`floodgate.broker.messages.update`)."""
    message = CurrentMessage.get_current_message()
    assert isinstance(message, DeliveredMessage), "only a worker can run handle_update"
    (handling,) = _handling
    await current_broker().connections.io.join(handling.deliver(message))
