"""Lanes: a chat's updates one after the other, those of different chats side by side.

A handler worker holds a window of updates of each partition (``FLOODGATE_UPDATES__WINDOW``). An update goes into the
lane of what it is kept in order with, its chat as a rule, and waits there for those before it and for nothing else. A
lane exists while it has updates, so there are never more than the windows hold.

RabbitMQ takes a message from a consumer that has held it for 30 minutes. So what has waited in its lane for
:data:`WAIT_SECONDS` is returned before its turn, with all behind it, and comes back at once with its time anew.

What has not begun when the worker stops, or when its connection was lost, does not begin: RabbitMQ has it, and returns
a window's messages in their order.
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

# With the longest time for a handler (1,500 s) this is what RabbitMQ's consumer timeout leaves.
WAIT_SECONDS: Final = 300.0

LaneKey = tuple[str, str]  # queue, partition key
Lane = deque[tuple[float, DeliveredMessage]]  # with the moment of arrival, on the monotonic clock


class Lanes:
    """Belongs to the event loop.

    Parameters:
        track: is given each lane's task, so that a stop waits for it.
    """

    def __init__(self, stopping: Stopping, track: Callable[[asyncio.Task[None]], None]) -> None:
        self._stopping = stopping
        self._track = track
        self._lanes: dict[LaneKey, Lane] = {}

    def dispatch(self, message: DeliveredMessage, run: RunMessage) -> None:
        """Have a message run when those before it in its lane have ended."""
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
                        _return(lane)  # it went back, so those behind it go, too
        finally:
            for _, message in lane:
                message.delivery.put_down()
            del self._lanes[key]


def _join(lane: Lane, message: DeliveredMessage) -> None:
    """A new update goes to the end; one that comes back, to the place it had: Telegram's ids rise within a chat."""
    place = len(lane)
    if message.delivery.redelivered:
        while place and _update_id(lane[place - 1][1]) > _update_id(message):
            place -= 1
    lane.insert(place, (time.monotonic(), message))


def _update_id(message: DeliveredMessage) -> int:
    assert message.update is not None
    return message.update.update_id


def _return(lane: Lane) -> None:
    """All back to their queue, in their order."""
    while lane:
        lane.popleft()[1].delivery.requeue()
