"""Admission on Redis or Valkey, for workers on many machines.

Overview: calls of one bot that wait at the same time are executed in one run of ``admission.lua`` on the server, by its
digest; the script is sent again if the server does not have it. The script implements ``decisions`` in Lua. The
policy's constants are prepended to it, and a bot's rules are passed to each run, so that both are defined in one place.
A batch is one pipeline of such runs: one round trip, over a connection that belongs to the event loop.

State: all of a bot's keys begin with ``floodgate:{<bot>}:``, so a cluster keeps them on one node, and no run of the
script touches two bots. The client library's connection pool is thread-safe and fork-safe; nothing is connected before
the first call.

A run names the epoch and the number of writes that this process has seen last: see ``continuity``. If the server has
forgotten some of them, or another process has found that it has, the run carries nothing out. The process then tells
the server what it remembers, and makes its calls again.

Failure handling: a call is repeated once if its connection broke. Any other failure becomes one
``StateUnavailableError``, and nothing is sent until a later call succeeds. A server that hangs may carry out a call
when its caller has long given up. So each ask carries a nonce, which it keeps until it is answered: a permit that was
granted meanwhile is granted again to the caller that asks again, as of when it asked first, and so it is handed back if
it is too old. A server that evicts keys under memory pressure would forget which jobs were sent, so that is logged as a
warning.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from itertools import chain
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from floodgate.broker.admission import policy as numbers
from floodgate.broker.admission.clock import Clock
from floodgate.broker.admission.contract import (
    AlreadyDead,
    AlreadySent,
    Ask,
    CallFamily,
    CallUnderWay,
    ChatExplanation,
    ChatLine,
    Dead,
    Decision,
    Exhausted,
    Go,
    JobPlace,
    Line,
    NotKept,
    Pause,
    Record,
    Released,
    Retrying,
    Scope,
    Sent,
    Settlement,
    SlowedChat,
    Snapshot,
    Standing,
    Unreachable,
    UnreachableChat,
    Unsettled,
    Wait,
)
from floodgate.broker.admission.policy import Policy, Rates
from floodgate.broker.admission.result_feed import dead_record, dead_text, json_text, sent_record, sent_text
from floodgate.broker.admission.windows import Pace, Window
from floodgate.broker.errors import StateError, StateUnavailableError
from floodgate.broker.messages.job import Priority
from floodgate.broker.settings.redis_address import RedisAddress
from floodgate.broker.state.calls import AdmissionCall, BlockingAdmission
from floodgate.broker.state.memory import Seen
from floodgate.broker.state.redis.clients import TIMEOUT_SECONDS
from floodgate.broker.state.redis.continuity import TRIES, Continuity
from floodgate.broker.state.redis.faults import ERRORS
from floodgate.broker.state.redis.result_feed import channel_of
from floodgate.broker.state.redis.scripts import LuaScript, ReplicaWait, arun_all
from floodgate.broker.state.redis.server import AsyncRedisConnection, RedisConnection

_ASKS: Final = frozenset({"admit", "renew_unsettled"})
# Asks without an answer that a process remembers: far more than it has jobs in hand.
MOST_UNANSWERED: Final = 10_000
# A run of the script blocks the server's other clients for some 0.05 ms per call.
MOST_IN_A_RUN: Final = 32
SHOWN: Final = 10  # longest lines, longest pauses and slowed chats in a snapshot

_CONSTANTS: Final = (
    "SECOND MINUTE AGING_US INTERACTIVE_TURNS WAITER_GRACE_US LATE_US MISSING_GRACE_US MISSING_POLL_US CLAIM_US "
    "REBUILD_GRACE_US IN_FLIGHT_MIN_US IN_FLIGHT_MAX_US PLACE_US SLOW_CALL_US REST_MAX_US PAUSE_MARGIN_US MOMENT_US "
    "EVIDENCE_CHATS LONG_WAIT_US LONG_WAIT_CHATS REFUSALS_KEPT SLOWER_PERMILLE SLOWEST_PERMILLE "
    "RECOVERY_US_PER_PERMILLE CHAT_IDLE_US ASK_ANEW_US HANDED_BACK_MOST CANCELLED_KEPT_US CANCELLED_MOST NAME_US "
    "OUTAGE_CHATS OUTAGE_MOMENT_US PROBE_FIRST_US PROBE_MOST_US PROBE_POLL_US BOT_LATE_MOST_US PAUSE_POLL_US "
    "TYPING_IDLE_US ENQUEUED_US CHAIN_STEPS WIDER_PERMILLE WIDEST_PERMILLE NARROWING_US_PER_PERMILLE"
)


class _Given(NamedTuple):
    """An encoded call. A permit counts from when the call, or the first without an answer, ``began``."""

    operation: str
    arguments: str
    began: float


class AdmissionScript:
    """``admission.lua``, with the encoding of its arguments and replies."""

    def __init__(self, policy: Policy, clock: Clock | None, address: RedisAddress) -> None:
        self._policy = policy
        self._clock = clock  # for tests; otherwise the server's own clock is used
        self._address = address
        self._rules: dict[str, str] = {}  # by bot; written by whichever thread, always with the same value
        self._unanswered: OrderedDict[tuple[str, str], tuple[str, float]] = OrderedDict()  # asks, by bot and job
        self.lua = LuaScript("admission.lua", 2, _constants())

    def arguments(self, bot: str, expected: Sequence[str], given: Iterable[_Given]) -> list[str]:
        """Return the keys and arguments of a run: what it is expected to find, and the encoded calls."""
        prefix = f"floodgate:{{{bot}}}:"
        calls = chain.from_iterable((each.operation, each.arguments) for each in given)
        return [prefix, f"{prefix}bot", self._rules_of(bot), *expected, *calls]

    def given(self, call: AdmissionCall) -> _Given:
        """Encode a call for the script."""
        given, began = _GIVEN[call.method](*call.arguments), time.monotonic()
        if call.method in _ASKS:
            earlier = self._unanswered.pop((call.bot, given["job"]), None)
            given["nonce"], began = earlier or (secrets.token_hex(8), began)
        if self._clock is not None:
            given = given | {"now": self._clock.read().ticks_us}
        return _Given(call.method, json_text(_given(given)), began)

    def lost(self, calls: Sequence[AdmissionCall], given: Sequence[_Given]) -> None:
        """Take note of encoded calls whose replies did not arrive."""
        for call, its in zip(calls, given, strict=True):
            if its.operation in _ASKS:
                nonce = json.loads(its.arguments)["nonce"]
                self._unanswered[call.bot, call.arguments[0].job_id] = nonce, its.began
        while len(self._unanswered) > MOST_UNANSWERED:
            self._unanswered.popitem(last=False)

    def results(self, calls: Sequence[AdmissionCall], reply: Any) -> list[Any]:
        """Decode the script's reply: a result or an exception for each call."""
        if isinstance(reply, Exception):
            return [reply] * len(calls)
        return [_attempt(self._result, call, its) for call, its in zip(calls, reply[1:], strict=True)]

    def _result(self, call: AdmissionCall, reply: Any) -> Any:
        if isinstance(reply, Exception):
            return reply
        if call.method == "snapshot":
            return _snapshot(self._policy, call.bot, reply)
        if call.method == "explain":
            return _explanation(call.bot, call.arguments[1], reply)
        return _READ[call.method](reply)

    def _rules_of(self, bot: str) -> str:
        if bot not in self._rules:
            rules = _rules(self._policy, bot) | {"channel": channel_of(bot, self._address)}
            self._rules[bot] = json.dumps(rules)
        return self._rules[bot]


class RedisAdmission(BlockingAdmission):
    """``contract.Admission`` on a Redis or Valkey server, or a cluster of them. Thread-safe and fork-safe."""

    def __init__(self, url: str, policy: Policy, clock: Clock | None = None) -> None:
        self._server = RedisConnection(url)
        self._script = AdmissionScript(policy, clock, self._server.address)
        self._continuity = Continuity(self._server.address)

    def close(self) -> None:
        self._server.close()

    def _do(self, call: AdmissionCall) -> Any:
        given = self._script.given(call)

        def run(client: Any) -> Any:
            (result,) = self._script.results([call], self._agreed(client, call.bot, [given]))
            if isinstance(result, Exception):
                raise result
            return result

        try:
            result = self._server.use(run)
        except StateError:
            self._script.lost([call], [given])
            raise
        self._continuity.note([call], [result])
        return _finished(result, given)

    def _agreed(
        self, client: Any, bot: str, given: Sequence[_Given], seen: Seen | None = None, tries: int = TRIES
    ) -> Any:
        """Return the reply of a run. If the state is not as this process remembers it, the server is told first."""
        expected = self._continuity.expected(bot, seen)
        reply = self._script.lua.run(client, self._script.arguments(bot, expected, given))
        if (found := self._continuity.found(bot, reply)) is None:
            return reply
        for its in self._continuity.tellings(bot, MOST_IN_A_RUN, tries):
            self._agreed(client, bot, [self._script.given(call) for call in its], found, tries - 1)
        return self._agreed(client, bot, given, found, tries - 1)


class RedisBatches:
    """``calls.Batches`` on a Redis or Valkey server or cluster: one pipeline at a time."""

    def __init__(
        self, url: str, policy: Policy, clock: Clock | None = None, replicas: ReplicaWait | None = None
    ) -> None:
        self._server = AsyncRedisConnection(url)
        self._script = AdmissionScript(policy, clock, self._server.address)
        self._continuity = Continuity(self._server.address)
        self._replicas = replicas
        self._task: asyncio.Task[None] | None = None

    def begin(self, calls: Sequence[AdmissionCall], done: Callable[[Sequence[Any]], None]) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run(calls, done), name="floodgate-state")

    async def close(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            await asyncio.wait({task}, timeout=TIMEOUT_SECONDS)
        await self._server.close()

    async def _run(self, calls: Sequence[AdmissionCall], done: Callable[[Sequence[Any]], None]) -> None:
        results: Sequence[Any]
        try:
            results = await self._results(calls)
        except Exception as error:  # noqa: BLE001  # even a bug must reach the waiting callers, who would wait for ever
            results = [error] * len(calls)
        done(results)

    async def _results(self, calls: Sequence[AdmissionCall]) -> list[Any]:
        given = [_attempt(self._script.given, call) for call in calls]
        results = {place: each for place, each in enumerate(given) if isinstance(each, Exception)}
        runs = list(_runs((place, call.bot) for place, call in enumerate(calls) if place not in results))
        asked = [(bot, [given[each] for each in places]) for bot, places in runs]
        replies: Sequence[Any] = [StateUnavailableError("no reply")] * len(asked)
        try:
            replies = await self._agreed(asked)
        finally:
            for (_, places), (_, its), reply in zip(runs, asked, replies, strict=True):
                if isinstance(reply, Exception):
                    self._script.lost([calls[place] for place in places], its)
        for (_, places), reply in zip(runs, replies, strict=True):
            results.update(zip(places, self._script.results([calls[place] for place in places], reply), strict=True))
        finished = [
            await self._server.explained(result) if isinstance(result, ERRORS) else _finished(result, each)
            for each, (_, result) in zip(given, sorted(results.items()), strict=True)
        ]
        self._continuity.note(calls, finished)
        return finished

    async def _agreed(
        self, runs: Sequence[_Run], seen: Mapping[str, Seen] = MappingProxyType({}), tries: int = TRIES
    ) -> list[Any]:
        """Return the replies of runs. Those of a bot whose state is not as this process remembers it are made again,
        once the server has been told."""
        asked = [
            (self._script.lua, self._script.arguments(bot, self._continuity.expected(bot, seen.get(bot)), given))
            for bot, given in runs
        ]
        replies = await self._server.use(lambda client: arun_all(client, asked, self._replicas))
        found = [self._continuity.found(bot, reply) for (bot, _), reply in zip(runs, replies, strict=True)]
        states = {bot: state for (bot, _), state in zip(runs, found, strict=True) if state is not None}
        for bot in states:
            for its in self._continuity.tellings(bot, MOST_IN_A_RUN, tries):
                await self._agreed([(bot, [self._script.given(call) for call in its])], states, tries - 1)
        refused = [place for place, state in enumerate(found) if state is not None]
        if refused:
            again = await self._agreed([runs[place] for place in refused], states, tries - 1)
            for place, reply in zip(refused, again, strict=True):
                replies[place] = reply
        return replies


_Run = tuple[str, Sequence[_Given]]
"""A bot, and its encoded calls."""


def _runs(asked: Iterable[tuple[int, str]]) -> Iterator[tuple[str, list[int]]]:
    """Yield the positions of each bot's calls, in order, at most :data:`MOST_IN_A_RUN` at a time."""
    of_bot: dict[str, list[int]] = {}
    for place, bot in asked:
        of_bot.setdefault(bot, []).append(place)
    for bot, places in of_bot.items():
        for first in range(0, len(places), MOST_IN_A_RUN):
            yield bot, places[first : first + MOST_IN_A_RUN]


def _finished(result: Any, given: _Given) -> Any:
    return replace(result, decided_at=given.began) if isinstance(result, Go) else result


def _attempt(make: Callable[..., Any], *arguments: Any) -> Any:
    """Return a function's result or the exception that it raises, so that a bug affects only one call of a batch."""
    try:
        return make(*arguments)
    except Exception as error:  # noqa: BLE001  # carried to whoever awaits the call
        return error


def _constants() -> str:
    """Return the policy's constants as the script's table K. They are the same for all bots, and in its digest."""
    return f"local K = {{ {', '.join(f'{name} = {getattr(numbers, name)}' for name in _CONSTANTS.split())} }}\n"


def _rules(policy: Policy, bot: str) -> dict[str, Any]:
    """Return the policy's rules for one bot, as the script needs them."""
    rates: Rates = policy.rates(bot)
    rules: dict[str, Any] = {
        "user": rates.windows("1"),
        "group": rates.windows("-1"),
        "typing": rates.typing,
        "own": {chat: windows for (name, chat), windows in policy.chats.items() if name == bot},
        "names": policy.names.get(bot, ()),
        "ledger": policy.ledger_us,
        "result": policy.result_us,
        "unreachable": policy.unreachable_us,
        "listed": policy.listed,
    }
    if policy.listed_us is not None:
        rules["listed_for"] = policy.listed_us
    for name, pace in (("free", rates.free), ("paid", rates.paid)):
        if pace is not None:
            rules[name] = _pace(pace)
    return rules


def _pace(pace: Pace) -> dict[str, Any]:
    spacing: dict[str, int | Window] = {"interval": pace.interval_us, "tolerance": pace.tolerance_us}
    return spacing if pace.window is None else spacing | {"window": pace.window}


def _settling(ask: Ask, settlement: Settlement, grant: int | None) -> dict[str, Any]:
    return _asked(ask) | {"grant": grant} | _settled(settlement)


def _asked(ask: Ask) -> dict[str, Any]:
    return {
        "job": ask.job_id,
        "chat": ask.chat,
        "line": numbers.line_of(ask),
        "priority": ask.priority,
        "units": numbers.chat_cost(ask),
        "bot_units": numbers.bot_cost(ask),
        "answers": numbers.is_answer(ask),
        "family": numbers.family_of(ask),
        "worth": None if ask.worth is None else _micros(ask.worth),
        "paid": ask.paid,
        "upload": ask.upload or None,
        "lease": _micros(ask.lease),
        "calls_left": ask.calls_left,
        "content": ask.content,
        "key": ask.coalesce,
        "variant": ask.variant,
        "final": ask.final or None,
        "campaign": ask.campaign,
        "created": ask.created_ms,
    }


def _given(arguments: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if value is not None}


def _settled(settlement: Settlement) -> dict[str, Any]:
    match settlement:
        case Sent(late=late):
            return {"how": "sent", "outcome": sent_text(settlement), "late": _micros(late)}
        case Dead(reason=reason):
            outcome = dead_text(settlement) if settlement.error is not None else None
            ended = {"how": "dead", "reason": reason, "outcome": outcome}
            return ended | {"unanswered": settlement.unanswered, "not_kept": not settlement.kept}
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
        case ["sent", outcome, content]:
            return AlreadySent(sent_record(outcome).result, content)
        case ["dead", outcome, content]:
            return AlreadyDead(outcome, content)
        case ["unreachable", why]:
            return Unreachable(why)
        case ["unsettled", age]:
            return Unsettled(timedelta(microseconds=age))
        case ["exhausted", lost, handed_back]:
            return Exhausted(lost, handed_back)
    raise AssertionError(f"admission.lua answered {reply!r}")


def _record(
    state: str, outcome: str | None = None, due: int = 0, content: str | None = None, chain: str | None = None
) -> Record | None:
    found = _standing(state, outcome, due)
    return found if found is None else replace(found, content=content, chain=chain)


def _standing(state: str, outcome: str | None, due: int) -> Record | None:
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


def _nothing(_reply: Any) -> None:
    pass


def _snapshot(policy: Policy, bot: str, reply: Any) -> Snapshot:
    second, permille, minute, sending, waiting, pauses, lines, dead, refused, not_kept, dropped, outage, *rest = reply
    ages, (slowed_chats, slowed), rollbacks, rolled_back = rest
    return Snapshot(
        bot=bot,
        sent_last_second=second,
        per_second_limit=numbers.per_second(policy.rates(bot).free, permille),
        sent_last_minute=minute,
        sending=sending,
        waiting=_waiting(waiting),
        pauses=tuple(Pause(chat, timedelta(microseconds=left), why) for chat, left, why in pauses),
        longest_lines=_lines(lines),
        dead=dead,
        unreachable=refused,
        not_kept=_counts(not_kept),
        dropped=_counts(dropped),
        outage=_time_or_none(outage),
        oldest={priority: _time(age) for priority, age in zip(Priority, ages, strict=True) if age is not None},
        slowed=tuple(sorted(map(_slowed, slowed), key=lambda one: (-one.recovery, one.chat, one.family))[:SHOWN]),
        slowed_chats={family: chats for family, chats in zip(numbers.SLOWABLE, slowed_chats, strict=False) if chats},
        rollbacks=rollbacks,
        rolled_back=_time_or_none(rolled_back),
    )


def _explanation(bot: str, job_id: str | None, reply: Any) -> ChatExplanation:
    (key, known, why, scope, paused, pause_why, bot_paused, bot_pause_why, outage, refused, call) = reply[:11]
    chat_free, bot_free, lines, place, slowed = reply[11:]
    return ChatExplanation(
        bot=bot,
        chat=key,
        known=bool(known),
        why=why,
        scope=None if scope is None else Scope(scope),
        pause=Pause(key, _time(paused), pause_why) if paused > 0 else None,
        bot_pause=Pause(None, _time(bot_paused), bot_pause_why) if bot_paused > 0 else None,
        outage=_time_or_none(outage),
        unreachable=None if refused is None else UnreachableChat(key, refused[0], _time(refused[1])),
        call=None if call is None else CallUnderWay(call[0], _time(call[1]), _time(call[2])),
        chat_free=_time(chat_free),
        bot_free=_time(bot_free),
        lines=tuple(map(_line, lines)),
        slowed=tuple(map(_slowed, slowed)),
        job=None if job_id is None else _place(job_id, *place),
    )


def _slowed(reply: Sequence[Any]) -> SlowedChat:
    chat, family, *times = reply
    return SlowedChat(chat, CallFamily(family), *map(_time, times))


def _line(reply: Sequence[Any]) -> ChatLine:
    priority, length, units, head, age, due, missing, first, last = reply
    ages = _time(age), _time(due), _time_or_none(missing), _time_or_none(first), _time_or_none(last)
    return ChatLine(Priority(priority), length, units, head, *ages)


def _place(
    job_id: str, state: str, priority: str | None = None, ahead: int | None = None, expected: int | None = None
) -> JobPlace:
    found = _standing(state, None, 0)
    its = None if priority is None else Priority(priority)
    return JobPlace(job_id, None if found is None else found.standing, its, ahead, _time_or_none(expected))


def _time(us: int) -> timedelta:
    return timedelta(microseconds=max(0, us))  # a job may have joined a microsecond from now, to be behind others


def _time_or_none(us: int | None) -> timedelta | None:
    return None if us is None else _time(us)


def _waiting(counts: Sequence[str | None]) -> dict[Priority, int]:
    return {priority: int(count or 0) for priority, count in zip(Priority, counts, strict=True)}


def _counts(found: Sequence[str]) -> dict[str, int]:
    return {name: int(count) for name, count in zip(found[::2], found[1::2], strict=True)}


def _lines(found: Sequence[str]) -> tuple[Line, ...]:
    named = [(name.partition(":"), int(length)) for name, length in zip(found[::2], found[1::2], strict=True)]
    return tuple(Line(chat, Priority(priority), length) for (priority, _, chat), length in named)


def _micros(duration: timedelta) -> int:
    return duration // timedelta(microseconds=1)


# How each call is encoded for the script, and how its reply is decoded.
_GIVEN: Final[dict[str, Callable[..., dict[str, Any]]]] = {
    "admit": _asked,
    "enqueued": lambda asks: {"asks": [_given(_asked(ask)) for ask in asks]},
    "renew_unsettled": _asked,
    "settle": _settling,
    "rejoin": lambda ask, delay, grant: _asked(ask) | {"delay": _micros(delay), "grant": grant},
    "restore_pace": lambda chat, family, permille, delay: {
        "chat": chat,
        "family": family,
        "permille": permille,
        "delay": _micros(delay),
    },
    "cancel": lambda ask, listed: _asked(ask) | {"listed": listed or None},
    "cancel_campaign": lambda campaign, before_ms: {"campaign": campaign, "before": before_ms},
    "lookup": lambda job_id: {"job": job_id},
    "reopen": lambda job_id: {"job": job_id},
    "mark_unreachable": lambda chat, why: {"chat": chat, "why": why[: numbers.WHY_LENGTH]},
    "heard_from": lambda chat: {"chat": chat},
    "unreachable": lambda limit, offset: {"first": offset, "last": offset + limit - 1},
    "unreachable_among": lambda chats: {"chats": chats},
    "not_kept": lambda limit, offset: {"first": offset, "last": offset + limit - 1},
    "count_dropped": lambda reason, letters: {"reason": reason, "letters": letters},
    "pause": lambda chat, duration, why: {"chat": chat, "duration": _micros(duration), "why": why},
    "too_many_requests": lambda chat, retry_after, family: {
        "chat": chat,
        "duration": _micros(retry_after),
        "family": family,
    },
    "resume": lambda chat: {"chat": chat},
    "migrate": lambda old, new: {"old": old, "new": new},
    "vouch_idle": dict,
    "waiting": dict,
    "snapshot": lambda: {"shown": SHOWN},
    "explain": lambda chat, job_id: {"chat": chat, "job": job_id},
}
_READ: Final[dict[str, Callable[[Any], Any]]] = {
    "admit": _decision,
    "enqueued": _nothing,
    "renew_unsettled": _decision,
    "settle": _nothing,
    "rejoin": _nothing,
    "restore_pace": _nothing,
    "cancel": lambda reply: _record(*reply),
    "cancel_campaign": _nothing,
    "lookup": lambda reply: _record(*reply),
    "reopen": lambda reply: _record(*reply),
    "mark_unreachable": _nothing,
    "heard_from": lambda reply: bool(reply[0]),
    "unreachable": lambda reply: tuple(
        UnreachableChat(chat, why, timedelta(microseconds=age)) for chat, why, age in reply
    ),
    "unreachable_among": tuple,
    "not_kept": lambda reply: tuple(
        NotKept(job_id, chat, reason, timedelta(microseconds=age)) for job_id, chat, reason, age in reply
    ),
    "count_dropped": _nothing,
    "pause": _nothing,
    "too_many_requests": lambda reply: Scope(reply[0]),
    "resume": lambda reply: bool(reply[0]),
    "migrate": _nothing,
    "vouch_idle": _nothing,
    "waiting": _waiting,
}
