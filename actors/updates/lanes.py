"""Lanes run each chat's updates one after the other, and those of different chats concurrently.

A handler worker holds a window of updates from each partition (``FLOODGATE_UPDATES__WINDOW``). Each update joins the
lane of its partition key, which is usually its chat, and waits there for the updates before it and for nothing else. A
lane exists while it has updates, so there are never more lanes than updates in the windows.

RabbitMQ takes a message from a consumer that has held it for 30 minutes. So an update that has waited in its lane for
:data:`WAIT_SECONDS` is returned to its queue with all updates behind it. They are redelivered at once, and their time
starts again.

An update that has not started when the worker stops, or when its connection is lost, is not started: RabbitMQ still has
it, and redelivers a window's messages in order.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from floodgate.broker.messages.update import partition_key
from floodgate.broker.process.stopping import Stopping
from floodgate.broker.worker.queue_consumer import DeliveredMessage
from floodgate.broker.worker.runner import RunMessage

# The rest of RabbitMQ's consumer timeout after the longest time for a handler (1,500 s).
WAIT_SECONDS: Final = 300.0

LaneKey = tuple[str, str]  # queue, partition key
Lane = deque[tuple[float, DeliveredMessage]]  # with the time of arrival on the monotonic clock


class Lanes:
    """The lanes of one worker. Belongs to the event loop.

    Args:
        stopping: set when the worker stops.
        track: called with each lane's task, so that a stop waits for it.
    """

    def __init__(self, stopping: Stopping, track: Callable[[asyncio.Task[None]], None]) -> None:
        self._stopping = stopping
        self._track = track
        self._lanes: dict[LaneKey, Lane] = {}

    def dispatch(self, message: DeliveredMessage, run: RunMessage) -> None:
        """Run a message after those before it in its lane."""
        assert message.update is not None
        key = (message.queue_name, partition_key(message.update.body))
        if (lane := self._lanes.get(key)) is not None:
            _join(lane, message)
            return
        self._lanes[key] = lane = deque([(time.monotonic(), message)])
        self._track(asyncio.get_running_loop().create_task(self._serve(key, lane, run), name=f"lane {key[1]}"))

    async def _serve(self, key: LaneKey, lane: Lane, run: RunMessage) -> None:
        try:
            while lane and not self._stopping.is_set():
                arrived, message = lane.popleft()
                if time.monotonic() - arrived > WAIT_SECONDS:
                    lane.appendleft((arrived, message))
                    _return(lane)
                elif message.delivery.live:
                    await run(message)
                    if not message.settled and not self._stopping.is_set():
                        _return(lane)  # the message was requeued, so those behind it are, too
        finally:
            for _, message in lane:
                message.delivery.put_down()
            del self._lanes[key]


def _join(lane: Lane, message: DeliveredMessage) -> None:
    """Add a new update at the end, and a redelivered one at its old place, which its id gives: ids rise in a chat."""
    place = len(lane)
    if message.delivery.redelivered:
        while place and _update_id(lane[place - 1][1]) > _update_id(message):
            place -= 1
    lane.insert(place, (time.monotonic(), message))


def _update_id(message: DeliveredMessage) -> int:
    assert message.update is not None
    return message.update.update_id


def _return(lane: Lane) -> None:
    """Requeue all updates of a lane, in order."""
    while lane:
        lane.popleft()[1].delivery.requeue()
