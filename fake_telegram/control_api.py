"""The server side of the control API: simulated failures, limits, recorded calls and simulated users.

Paths are under ``/control/``; bodies and answers are JSON. An invalid request is answered with 400 and
``{"error": "one sentence"}``. ``floodgate.fake_telegram.control.ControlClient`` is its client. It is for tests on this
machine and asks for no credentials.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from typing import Any, Final

from aiohttp import web

from floodgate.fake_telegram.calls import as_integer
from floodgate.fake_telegram.control_values import (
    ControlError,
    chat_state_from,
    fault_from,
    latency_from,
    limits_as_json,
    limits_from,
)
from floodgate.fake_telegram.errors import ApiError
from floodgate.fake_telegram.exchange import CallExchange
from floodgate.fake_telegram.injection import Crowd, inject
from floodgate.fake_telegram.summary import summarise

LARGEST_PAGE: Final = 10_000
MOST_SHOWN: Final = 100

ControlAnswer = dict[str, Any]
ControlHandler = Callable[[Mapping[str, Any]], Awaitable[ControlAnswer]]


class ControlApi:
    """The handlers by path. Used by the event loop only, except that the summary reads a snapshot in a thread."""

    def __init__(self, exchange: CallExchange, reset: Callable[[], Awaitable[None]]) -> None:
        self._exchange = exchange
        self._reset = reset
        self._handlers: dict[str, ControlHandler] = {
            "chat": self._set_chat,
            "chat/clear": self._clear_chats,
            "chat/describe": self._describe_chat,
            "server": self._set_server,
            "limits": self._set_limits,
            "pause": self._pause,
            "updates": self._inject,
            "reset": self._start_over,
            "arrivals": self._arrivals,
            "shown": self._shown,
            "summary": self._summary,
            "stats": self._stats,
        }

    async def handle(self, request: web.BaseRequest, path: str) -> web.Response:
        """Answer a control request."""
        handler = self._handlers.get(path)
        if handler is None:
            return _json({"error": f"No control path {path!r}; known are: {', '.join(self._handlers)}."}, 404)
        try:
            return _json(await handler(await _values(request)))
        except ControlError as error:
            return _json({"error": str(error)}, 400)
        except ApiError as error:
            return _json({"error": error.description}, 400)
        except (TypeError, ValueError) as error:
            return _json({"error": f"A value has the wrong type: {error}."}, 400)

    async def _set_chat(self, values: Mapping[str, Any]) -> ControlAnswer:
        chats = self._chats_of(values)
        settings = {name: value for name, value in values.items() if name != "chats"}
        for chat_id in chats:
            self._exchange.scenarios.set_chat(chat_id, chat_state_from(settings))
        return {"chats": chats}

    async def _clear_chats(self, values: Mapping[str, Any]) -> ControlAnswer:
        self._exchange.scenarios.clear_chats(self._chats_of(values) if values.get("chats") else None)
        return {}

    async def _describe_chat(self, values: Mapping[str, Any]) -> ControlAnswer:
        shown = {name: value for name, value in values.items() if name != "chats"}
        for chat_id in self._chats_of(values):
            self._exchange.world.chats.describe(chat_id, **shown)
        return {}

    def _chats_of(self, values: Mapping[str, Any]) -> list[int]:
        chats = values.get("chats")
        if not isinstance(chats, list) or not chats:
            raise ControlError("chats must be a list with at least one chat id or @name.")
        return [self._exchange.world.chats.resolve(chat) for chat in chats]

    async def _set_server(self, values: Mapping[str, Any]) -> ControlAnswer:
        scenarios = self._exchange.scenarios
        unknown = sorted(values.keys() - {"latency_ms", "seed", "faults"})
        if unknown:
            raise ControlError(f"The server has no setting {unknown[0]!r}; use faults, latency_ms or seed.")
        faults = [fault_from(fault) for fault in values["faults"]] if "faults" in values else scenarios.faults
        latency = latency_from(values["latency_ms"]) if "latency_ms" in values else scenarios.latency_ms
        scenarios.faults, scenarios.latency_ms = faults, latency
        if "seed" in values:
            scenarios.reseed(int(values["seed"]))
        return {}

    async def _set_limits(self, values: Mapping[str, Any]) -> ControlAnswer:
        flood = self._exchange.flood
        flood.apply(limits_from(flood.limits, values))
        return limits_as_json(flood.limits)

    async def _pause(self, values: Mapping[str, Any]) -> ControlAnswer:
        bot_id, seconds = as_integer(values.get("bot_id")), float(values.get("seconds") or 0)
        if bot_id <= 0 or seconds <= 0:
            raise ControlError("A pause needs bot_id and seconds, and chat_id to pause one chat only.")
        chat = values.get("chat_id")
        chat_id = None if chat is None else self._exchange.world.chats.resolve(chat)
        self._exchange.flood.impose(bot_id, chat_id, seconds, self._exchange.now())
        return {}

    async def _inject(self, values: Mapping[str, Any]) -> ControlAnswer:
        bot_id = as_integer(values.get("bot_id"))
        if bot_id <= 0:
            raise ControlError("Updates need bot_id, the number before the colon of the bot's token.")
        crowd = values.get("crowd")
        described = list(Crowd(**crowd).descriptions()) if crowd else values.get("updates")
        if not isinstance(described, list) or not all(isinstance(one, dict) for one in described):
            raise ControlError("updates must be a list of objects; for many users at once, use crowd instead.")
        return {"update_ids": inject(self._exchange.world, bot_id, described)}

    async def _start_over(self, values: Mapping[str, Any]) -> ControlAnswer:
        await self._reset()
        return {}

    async def _arrivals(self, values: Mapping[str, Any]) -> ControlAnswer:
        limit = min(max(as_integer(values.get("limit", 1000)), 1), LARGEST_PAGE)
        page = self._exchange.arrivals.page(as_integer(values.get("after", 0)), limit)
        return {"arrivals": [arrival.as_json() for arrival in page]}

    async def _shown(self, values: Mapping[str, Any]) -> ControlAnswer:
        world, bot_id = self._exchange.world, as_integer(values.get("bot_id"))
        chat_id = world.chats.resolve(values.get("chat_id"))
        draft = world.drafts.find(bot_id, chat_id, world.wall())
        return {"messages": world.messages.latest(bot_id, chat_id, MOST_SHOWN), "draft": draft}

    async def _summary(self, values: Mapping[str, Any]) -> ControlAnswer:
        records = self._exchange.arrivals.snapshot()
        return asdict(await asyncio.to_thread(summarise, records))

    async def _stats(self, values: Mapping[str, Any]) -> ControlAnswer:
        inboxes = self._exchange.world.receiving.all()
        stats = asdict(self._exchange.arrivals.stats(self._exchange.now()))
        return {**stats, "pending_updates": sum(len(inbox.pending) for inbox in inboxes)}


async def _values(request: web.BaseRequest) -> Mapping[str, Any]:
    body = await request.read()
    if not body:
        return dict(request.query)
    values = json.loads(body)
    if not isinstance(values, dict):
        raise ControlError("The body must be a JSON object.")
    return values


def _json(answer: ControlAnswer, status: int = 200) -> web.Response:
    return web.Response(body=json.dumps(answer).encode(), status=status, content_type="application/json")
