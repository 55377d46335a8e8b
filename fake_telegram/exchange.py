"""Processes a call: arrival → faults → limits → refusal or effect → answer.

All of it happens at arrival without any waiting, so limits are charged and messages appear in the order of
arrival. Waits come afterwards, in the HTTP layer, as the ``Reply`` says: latency and slow mode delay an answer, a cut
drops the connection, a stall never answers.

A chat's troubles are checked after the limits, so a call to a blocked user costs as much as any other. An invalid call
is charged, too, because it has arrived. A connection that is cut before the call is seen costs nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from floodgate.fake_telegram.arrivals import Arrival, Arrivals
from floodgate.fake_telegram.calls import EMPTY, Call, CallSource, as_text
from floodgate.fake_telegram.errors import ApiError, bad_request, not_found, too_many_requests, unauthorized
from floodgate.fake_telegram.limits import CallCost, FloodControl
from floodgate.fake_telegram.methods import METHODS
from floodgate.fake_telegram.methods.receiving import NAMES, WAITING
from floodgate.fake_telegram.methods.sending import break_album
from floodgate.fake_telegram.methods.table import Method
from floodgate.fake_telegram.scenarios import Fault, FaultKind, Scenarios
from floodgate.fake_telegram.webhooks import Webhooks
from floodgate.fake_telegram.world import World

HTML_ERROR: Final = (
    "<html>\r\n<head><title>{code} {reason}</title></head>\r\n<body>\r\n<center><h1>{code} {reason}</h1></center>\r\n"
    "<hr><center>nginx/1.18.0</center>\r\n</body>\r\n</html>\r\n"
)
_REASONS: Final = {
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Time-out",
    413: "Request Entity Too Large",
}


class ReplyKind(Enum):
    """How a call ends for the caller."""

    ANSWER = "answer"
    CUT = "cut"
    STALL = "stall"


@dataclass(frozen=True, slots=True)
class Reply:
    """The HTTP layer's reply to a call. ``code`` and ``body`` are used for an answer only."""

    code: int
    body: bytes
    content_type: str = "application/json"
    retry_after: int | None = None
    held_seconds: float = 0.0
    kind: ReplyKind = ReplyKind.ANSWER


CUT: Final = Reply(0, b"", kind=ReplyKind.CUT)


class CallExchange:
    """Executes calls. Used by the event loop only."""

    def __init__(
        self,
        world: World,
        flood: FloodControl,
        scenarios: Scenarios,
        arrivals: Arrivals,
        clock: Callable[[], float],
    ) -> None:
        self.world = world
        self.flood = flood
        self.scenarios = scenarios
        self.arrivals = arrivals
        self._clock = clock
        self._started_at = clock()

    def now(self) -> float:
        """Return the seconds since the server's start, the clock of ``Arrival.at``."""
        return self._clock() - self._started_at

    def arrive(self, bot_id: int, name: str, source: CallSource = EMPTY, chat: Any = None) -> Arrival:
        """Record the arrival of a call, with its method and chat as written in the call."""
        method = METHODS.get(name)
        shown = method.name if method else NAMES.get(name, name)
        return self.arrivals.open(bot_id, shown, self._known_chat(chat), source, self.now(), self.world.wall())

    def _known_chat(self, value: Any) -> int | None:
        if value is None:
            return None
        try:
            return self.world.chats.resolve(value)
        except ApiError:
            return None

    def perform(self, call: Call, arrival: Arrival) -> Reply:
        """Check a call against faults and limits, carry it out, and return the reply."""
        fault = self.scenarios.strike(call, arrival.chat_id)
        if fault is not None and fault.before_acting:
            return _struck(fault)
        try:
            result = self._act(call, arrival)
        except ApiError as refusal:
            reply = self._held(refuse(refusal), arrival)
        else:
            reply = self._held(answer(result), arrival)
        return reply if fault is None else _struck(fault)

    def _act(self, call: Call, arrival: Arrival) -> Any:
        method = METHODS.get(call.method)
        if method is None:
            raise not_found()
        self._judge(method.charge(call), arrival)
        if arrival.chat_id is not None:
            self.scenarios.refuse(arrival.chat_id, writes=method.writes)
        result = self._handle(method, call, arrival)
        self.arrivals.acted(arrival, _message_id(result))
        return result

    def _judge(self, charge: CallCost | None, arrival: Arrival) -> None:
        if charge is not None:
            arrival.cost, arrival.charged_chat, arrival.paid = charge.cost, charge.chat, charge.paid
            arrival.typing = charge.typing
        verdict = self.flood.judge(arrival.bot_id, arrival.chat_id, charge, arrival.at)
        arrival.verdict = verdict.by
        if not verdict.passes:
            raise too_many_requests(verdict.retry_after)

    def _handle(self, method: Method, call: Call, arrival: Arrival) -> Any:
        album = method.counted_by == "media" and arrival.chat_id is not None
        if album and self.scenarios.breaks_album(arrival.chat_id or 0):
            return break_album(self.world, call)
        return method.handler(self.world, call)

    def _held(self, reply: Reply, arrival: Arrival) -> Reply:
        """Return the reply, delayed by the latency and the chat's slow mode."""
        held = self.scenarios.latency_seconds()
        metered = arrival.verdict not in ("free", "")
        if metered and arrival.chat_id is not None and reply.code != 429:
            held += self.scenarios.held_seconds(arrival.chat_id)
        if held <= 0:
            return reply
        return Reply(reply.code, reply.body, reply.content_type, reply.retry_after, held)

    async def perform_waiting(self, call: Call, arrival: Arrival, webhooks: Webhooks) -> Reply:
        """Carry out a receiving method, which may wait and has no limit."""
        fault = self.scenarios.strike(call, None)
        if fault is not None and fault.before_acting:
            return _struck(fault)
        arrival.verdict = "free"
        try:
            result = await WAITING[call.method](self.world, webhooks, call)
        except ApiError as refusal:
            return refuse(refusal)
        self.arrivals.acted(arrival, None)
        return answer(result) if fault is None else _struck(fault)

    def take_webhook_reply(self, bot_id: int, body: dict[str, Any]) -> None:
        """Make the call in a webhook's answer. Its result is discarded."""
        name = as_text(body.pop("method", "")).lower()
        source = CallSource("json", json.dumps(body).encode())
        arrival = self.arrive(bot_id, name, source, body.get("chat_id"))
        reply = self.perform(Call(bot_id, name, body, source=source), arrival)
        self.arrivals.close(arrival, reply.code or None)


def answer(result: Any) -> Reply:
    """Return a 200 with Telegram's ``result``."""
    return Reply(200, b'{"ok":true,"result":' + json.dumps(result, separators=(",", ":")).encode() + b"}")


def refuse(error: ApiError) -> Reply:
    """Return Telegram's answer for an error. A flood wait is in the `Retry-After` header, too."""
    body = json.dumps(error.as_json(), separators=(",", ":")).encode()
    wait = (error.parameters or {}).get("retry_after") if error.code == 429 else None
    return Reply(error.code, body, retry_after=wait)


def html_error(code: int) -> Reply:
    """Return the error page of a proxy in front of Telegram."""
    page = HTML_ERROR.format(code=code, reason=_REASONS.get(code, "Error"))
    return Reply(code, page.encode(), "text/html")


def _struck(fault: Fault) -> Reply:
    match fault.kind:
        case FaultKind.ERROR:
            return html_error(fault.code)
        case FaultKind.CUT_BEFORE | FaultKind.CUT_AFTER:
            return CUT
        case FaultKind.STALL:
            return Reply(0, b"", kind=ReplyKind.STALL)
        case FaultKind.RETRY_AFTER_IN_400:
            return refuse(bad_request(f"too many requests: retry after {fault.seconds}"))
        case FaultKind.UNAUTHORIZED:
            return refuse(unauthorized())


def _message_id(result: Any) -> int | None:
    first = result[0] if isinstance(result, list) and result else result
    found = first.get("message_id") if isinstance(first, dict) else None
    return found if isinstance(found, int) else None
