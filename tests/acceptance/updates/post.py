"""Puts updates into RabbitMQ as a receiver would, without a receiver."""

from __future__ import annotations

import itertools
import time
from typing import Any

from floodgate.broker.amqp import queue_admin, topology
from floodgate.broker.amqp.connections import Connections
from floodgate.broker.messages.publication import Publication
from floodgate.broker.messages.update import publication, read_update
from floodgate.broker.settings.model import Settings
from tests.acceptance.stage import BOT


class Post:
    """Has its own connection; update ids count up from 1."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.connections = Connections(settings, "test")
        needed = topology.pipeline([BOT], settings.partitions, update_partitions=settings.update_partitions)
        queue_admin.declare(self.connections, needed)
        self._ids = itertools.count(1)

    def says(self, user: int, text: str, *, chat: int | None = None) -> int:
        """Delivers a message; returns its update's id."""
        return self.arrives(message=message(user, text, chat))

    def presses(self, user: int, message_id: int) -> int:
        query = {"id": str(message_id), "from": person(user), "chat_instance": "1", "data": "x"}
        return self.arrives(callback_query={**query, "message": {**message(user, "keys"), "message_id": message_id}})

    def arrives(self, **content: Any) -> int:
        update_id = next(self._ids)
        self.publish({"update_id": update_id, **content})
        return update_id

    def publish(self, body: dict[str, Any]) -> None:
        self.put(publication(read_update(BOT, body), self._settings.update_partitions))

    def put(self, *publications: Publication) -> None:
        for fault in self.connections.publisher.submit_many(list(publications)).result():
            assert fault is None, fault

    def close(self) -> None:
        self.connections.stop()


def person(user: int) -> dict[str, Any]:
    return {"id": user, "is_bot": False, "first_name": "Ada"}


def message(user: int, text: str, chat: int | None = None) -> dict[str, Any]:
    where = {"id": user, "type": "private"} if chat is None else {"id": chat, "type": "supergroup", "title": "all"}
    return {"message_id": 7, "date": int(time.time()), "from": person(user), "chat": where, "text": text}
