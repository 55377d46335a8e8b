"""Lanes: a chat's updates one after the other, those of different chats side by side.

A handler worker holds a window of updates of each partition (``FLOODGATE_UPDATES__WINDOW``). An update goes into the
lane of what it is kept in order with, its chat as a rule, and waits there for those before it and for nothing else. A
lane exists while it has updates, so there are never more than the windows hold.

What has not begun when the worker stops, or when its connection was lost, does not begin: RabbitMQ has it, and returns
a window's messages in their order.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from broker.dramatiq_consumer import DeliveredMessage
from broker.runner import Run
from broker.stopping import Stopping
from broker.update import partition_key

Key = tuple[str, str]  # queue, partition key


class Lanes:
    """Belongs to the event loop.

    Parameters:
        track: is given each lane's task, so that a stop waits for it.
    """

    def __init__(self, stopping: Stopping, track: Callable[[asyncio.Task[None]], None]) -> None:
        self._stopping = stopping
        self._track = track
        self._lanes: dict[Key, deque[DeliveredMessage]] = {}

    def dispatch(self, message: DeliveredMessage, run: Run) -> None:
        """Have a message run when those before it in its lane have ended."""
        assert message.update is not None
        key = (message.queue_name, partition_key(message.update.body))
        if (lane := self._lanes.get(key)) is not None:
            lane.append(message)
            return
        self._lanes[key] = lane = deque([message])
        self._track(asyncio.get_running_loop().create_task(self._serve(key, lane, run), name=f"lane {key[1]}"))

    async def _serve(self, key: Key, lane: deque[DeliveredMessage], run: Run) -> None:
        try:
            while lane:
                message = lane.popleft()
                if self._stopping.is_set():
                    message.delivery.put_down()
                elif message.delivery.live:
                    await run(message)
        finally:
            for message in lane:  # the lane was cancelled
                message.delivery.put_down()
            del self._lanes[key]
