"""Admission on Redis or Valkey, for workers on many machines.

Overview: each call is one run of ``admission.lua`` on the server, by its digest; the script is sent again when the
server has forgotten it. The script is ``decisions`` in the server's language; it is given the policy's numbers with
each call, so that they stand in one place.

State: all of a bot's keys begin with ``floodgate:{<bot>}:``, so a cluster keeps them on one node. The client library's
connection pool is thread-safe and fork-safe; nothing is connected before the first call.

Failure handling: a call is made again once when its connection broke; it carries a nonce, so that a permission whose
answer was lost is given again and not to somebody else. Whatever else fails becomes one ``StateUnavailableError``.
Nothing is sent until a later call succeeds. A server that evicts keys under memory pressure would forget what was sent:
that is warned of.
"""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
import threading
from collections.abc import Sequence
from datetime import timedelta
from importlib.resources import files
from typing import Any, Final

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from broker.admission import policy as numbers
from broker.admission.clock import Clock
from broker.admission.contract import (
    CANCELLED,
    AlreadyDead,
    AlreadySent,
    Ask,
    Dead,
    Decision,
    Exhausted,
    Go,
    Line,
    Pause,
    Record,
    Released,
    Retrying,
    Scope,
    Sent,
    Settlement,
    Snapshot,
    Standing,
    Unknown,
    Unreachable,
    UnreachableChat,
    Wait,
)
from broker.admission.endings import dead_record, dead_text, json_text, sent_record, sent_text
from broker.admission.policy import Policy, Rates
from broker.admission.windows import Pace, Window
from broker.errors import StateSchemaError, StateUnavailableError
from broker.job import Priority

logger = logging.getLogger("floodgate.admission")

# A call takes well under a millisecond; beyond this the server or the network is gone.
TIMEOUT_SECONDS: Final = 5.0
SHOWN: Final = 10  # longest lines and longest pauses in a snapshot

_CONSTANTS: Final = (
    "SECOND MINUTE AGING_US INTERACTIVE_TURNS WAITER_GRACE_US LATE_US MISSING_GRACE_US MISSING_POLL_US CLAIM_US "
    "IN_FLIGHT_MIN_US IN_FLIGHT_MAX_US PLACE_US SLOW_CALL_US REST_MAX_US PAUSE_MARGIN_US MOMENT_US EVIDENCE_CHATS "
    "LONG_WAIT_US LONG_WAIT_CHATS REFUSALS_KEPT SLOWER_PERMILLE SLOWEST_PERMILLE RECOVERY_US_PER_PERMILLE CHAT_IDLE_US "
    "ASK_ANEW_US HANDED_BACK_MOST NAME_US OUTAGE_CHATS OUTAGE_MOMENT_US PROBE_FIRST_US PROBE_MOST_US PROBE_POLL_US"
)


class RedisAdmission:
    """``contract.Admission`` on a Redis or Valkey server, or a cluster of them. Thread-safe and fork-safe."""

    def __init__(self, url: str, policy: Policy, clock: Clock | None = None) -> None:
        self._url = url
        self._policy = policy
        self._clock = clock  # for tests; the server's own clock counts otherwise
        self._lock = threading.Lock()
        self._client: Any = None  # made under _lock
        self._rules: dict[str, str] = {}  # by bot; written by whichever thread, always with the same value
        self._script = files(__package__).joinpath("admission.lua").read_text()
        self._digest = hashlib.sha1(self._script.encode(), usedforsecurity=False).hexdigest()

    def admit(self, ask: Ask) -> Decision:
        return _decision(self._call("admit", ask.bot, _asked(ask)))

    def renew_unknown(self, ask: Ask) -> Decision:
        return _decision(self._call("renew_unknown", ask.bot, _asked(ask)))

    def settle(self, ask: Ask, settlement: Settlement, grant: int | None = None) -> None:
        self._call("settle", ask.bot, _asked(ask) | {"grant": grant} | _settled(settlement))

    def cancel(self, ask: Ask) -> Record:
        record = _record(*self._call("cancel", ask.bot, _asked(ask) | {"reason": CANCELLED}))
        assert record is not None
        return record

    def lookup(self, bot: str, job_id: str) -> Record | None:
        return _record(*self._call("lookup", bot, {"job": job_id}))

    def reopen(self, bot: str, job_id: str) -> Record | None:
        return _record(*self._call("reopen", bot, {"job": job_id}))

    def mark_unreachable(self, bot: str, chat: str, why: str) -> None:
        self._call("mark_unreachable", bot, {"chat": chat, "why": why[: numbers.WHY_LENGTH]})

    def heard_from(self, bot: str, chat: str) -> bool:
        (held,) = self._call("heard_from", bot, {"chat": chat})
        return bool(held)

    def unreachable(self, bot: str, limit: int = 1000, offset: int = 0) -> Sequence[UnreachableChat]:
        found = self._call("unreachable", bot, {"first": offset, "last": offset + limit - 1})
        return tuple(UnreachableChat(chat, why, timedelta(microseconds=age)) for chat, why, age in found)

    def pause(self, bot: str, chat: str | None, duration: timedelta, why: str) -> None:
        self._call("pause", bot, {"chat": chat, "duration": _micros(duration), "why": why})

    def too_many_requests(self, bot: str, chat: str | None, retry_after: timedelta) -> Scope:
        return Scope(self._call("too_many_requests", bot, {"chat": chat, "duration": _micros(retry_after)})[0])

    def resume(self, bot: str, chat: str | None) -> None:
        self._call("resume", bot, {"chat": chat})

    def migrate(self, bot: str, old_chat: str, new_chat: str) -> None:
        self._call("migrate", bot, {"old": old_chat, "new": new_chat})

    def vouch_idle(self, bot: str) -> None:
        self._call("vouch_idle", bot, {})

    def snapshot(self, bot: str) -> Snapshot:
        second, permille, minute, sending, waiting, pauses, lines, *counts = self._call(
            "snapshot", bot, {"shown": SHOWN}
        )
        dead, refused, outage = counts
        return Snapshot(
            bot=bot,
            sent_last_second=second,
            per_second_limit=numbers.per_second(self._policy.rates(bot).free, permille),
            sent_last_minute=minute,
            sending=sending,
            waiting={one: int(count or 0) for one, count in zip(Priority, waiting, strict=True)},
            pauses=tuple(Pause(chat, timedelta(microseconds=left), why) for chat, left, why in pauses),
            longest_lines=_lines(lines),
            dead=dead,
            unreachable=refused,
            outage=None if outage is None else timedelta(microseconds=outage),
        )

    def close(self) -> None:
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _call(self, operation: str, bot: str, arguments: dict[str, Any]) -> Any:
        if self._clock is not None:
            arguments = arguments | {"now": self._clock.read().ticks_us}
        text = json_text({name: value for name, value in arguments.items() if value is not None})
        try:
            return self._run(f"floodgate:{{{bot}}}:", operation, text, self._rules_of(bot))
        except redis.exceptions.RedisError as error:
            raise fault(error, where(self._url)) from error

    def _run(self, prefix: str, *arguments: str) -> Any:
        client = self._client or self._connect()
        try:
            return client.evalsha(self._digest, 1, prefix, *arguments)
        except redis.exceptions.NoScriptError:
            return client.eval(self._script, 1, prefix, *arguments)

    def _connect(self) -> Any:
        with self._lock:
            if self._client is None:
                self._client = connect_to(self._url)
            return self._client

    def _rules_of(self, bot: str) -> str:
        if bot not in self._rules:
            self._rules[bot] = json.dumps(_rules(self._policy, bot))
        return self._rules[bot]


def connect_to(url: str) -> Any:
    """A client of the server, or of the cluster that it belongs to.

    Raises:
        redis.exceptions.RedisError: it does not answer.
    """
    client = _client(redis.Redis, url)
    info = client.info()
    if info.get("cluster_enabled"):
        client.close()
        client = _client(redis.RedisCluster, url)
    if info.get("maxmemory") and info.get("maxmemory_policy") != "noeviction":
        logger.warning(
            "%s evicts keys when its memory is full (%s), and would forget what was sent. "
            "Set maxmemory-policy noeviction.",
            where(url),
            info.get("maxmemory_policy"),
        )
    return client


def where(url: str) -> str:
    """The server without user and password."""
    parts = redis.connection.parse_url(url)  # type: ignore[no-untyped-call]
    return str(parts.get("path") or f"{parts.get('host', 'localhost')}:{parts.get('port', 6379)}")


def _client(kind: Any, url: str) -> Any:
    return kind.from_url(
        url,
        decode_responses=True,
        socket_timeout=TIMEOUT_SECONDS,
        socket_connect_timeout=TIMEOUT_SECONDS,
        retry=Retry(NoBackoff(), 1),
    )


def _rules(policy: Policy, bot: str) -> dict[str, Any]:
    """What the script needs to know of the policy."""
    rates: Rates = policy.rates(bot)
    rules: dict[str, Any] = {
        "user": rates.windows("1"),
        "group": rates.windows("-1"),
        "own": {chat: windows for (name, chat), windows in policy.chats.items() if name == bot},
        "names": policy.names.get(bot, ()),
        "ledger": policy.ledger_us,
        "result": policy.result_us,
        "unreachable": policy.unreachable_us,
        "constants": {name: getattr(numbers, name) for name in _CONSTANTS.split()},
    }
    for name, pace in (("free", rates.free), ("paid", rates.paid)):
        if pace is not None:
            rules[name] = _pace(pace)
    return rules


def _pace(pace: Pace) -> dict[str, Any]:
    spacing: dict[str, int | Window] = {"interval": pace.interval_us, "tolerance": pace.tolerance_us}
    return spacing if pace.window is None else spacing | {"window": pace.window}


def _asked(ask: Ask) -> dict[str, Any]:
    return {
        "job": ask.job_id,
        "chat": ask.chat,
        "line": numbers.line_of(ask),
        "priority": ask.priority,
        "units": numbers.chat_cost(ask),
        "bot_units": numbers.bot_cost(ask),
        "paid": ask.paid,
        "lease": _micros(ask.lease),
        "calls_left": ask.calls_left,
        "nonce": secrets.token_hex(8),
    }


def _settled(settlement: Settlement) -> dict[str, Any]:
    match settlement:
        case Sent(late=late):
            return {"how": "sent", "outcome": sent_text(settlement), "late": _micros(late)}
        case Dead(reason=reason):
            outcome = dead_text(settlement) if settlement.error is not None else None
            return {"how": "dead", "reason": reason, "outcome": outcome, "unanswered": settlement.unanswered}
        case Retrying(delay=delay, charged=charged, unanswered=unanswered):
            return {"how": "retrying", "delay": _micros(delay), "charged": charged, "unanswered": unanswered}
        case Released():
            return {"how": "released", "delay": 0, "charged": False}


def _decision(reply: Sequence[Any]) -> Decision:
    match reply:
        case ["go", chat, grant, probe]:
            return Go(chat, grant, bool(probe))
        case ["wait", delay, scope, why]:
            return Wait(timedelta(microseconds=delay), Scope(scope), why)
        case ["sent", outcome]:
            return AlreadySent(sent_record(outcome).result)
        case ["dead", outcome]:
            return AlreadyDead(outcome)
        case ["unreachable", why]:
            return Unreachable(why)
        case ["unknown", age]:
            return Unknown(timedelta(microseconds=age))
        case ["exhausted", lost, handed_back]:
            return Exhausted(lost, handed_back)
    raise AssertionError(f"admission.lua answered {reply!r}")


def _record(state: str, outcome: str | None = None, due: int = 0) -> Record | None:
    match state:
        case "none":
            return None
        case "sent":
            return sent_record(outcome)
        case "dead":
            return dead_record(outcome or "")
        case "sending":
            return Record(Standing.SENDING)
        case _:
            return Record(Standing.WAITING, due=timedelta(microseconds=due))


def _lines(found: Sequence[str]) -> tuple[Line, ...]:
    named = [(name.partition(":"), int(length)) for name, length in zip(found[::2], found[1::2], strict=True)]
    return tuple(Line(chat, Priority(priority), length) for (priority, _, chat), length in named)


def _micros(duration: timedelta) -> int:
    return duration // timedelta(microseconds=1)


def fault(error: redis.exceptions.RedisError, where: str) -> StateUnavailableError | StateSchemaError:
    """What the client raised, as the cause and the remedy."""
    text = str(error)
    match error:
        case redis.exceptions.AuthenticationError():
            why = "refuses our user or password. Correct FLOODGATE_STATE_URL."
        case redis.exceptions.ReadOnlyError():
            why = "is a read-only replica. Point FLOODGATE_STATE_URL at the primary."
        case redis.exceptions.OutOfMemoryError():
            why = "has no memory left. Raise its maxmemory; sends go on by themselves."
        case redis.exceptions.BusyLoadingError():
            why = "is still loading its data. Sends go on when it is done."
        case redis.exceptions.ConnectionError() | redis.exceptions.TimeoutError():
            why = f"does not answer ({type(error).__name__}). Start it, or correct FLOODGATE_STATE_URL."
        case _ if text.startswith("SCHEMA "):
            return StateSchemaError(
                f"The state in Redis at {where} has schema {text[7:]}, unknown to this Floodgate. Stop all workers and "
                "delete its floodgate:* keys: no message is lost, they are in RabbitMQ."
            )
        case _ if "MISCONF" in text:
            why = "cannot write to its disk and takes no writes. Free some space there; sends go on by themselves."
        case _:
            why = f"failed: {text[:200]}. Look into its log."
    return StateUnavailableError(f"Redis at {where} {why}")
