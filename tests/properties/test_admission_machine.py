"""Both stores compared with the model over any history of calls: one machine drives all three with one clock.

After each step they must agree on the decision: whether the job is admitted, or what it waits for and why. The stores
must agree with each other to the microsecond. Independently of the model, the sends are recorded and checked against
the guarantees: no window is ever exceeded, one call at a time in a chat, no job is sent twice, lines keep their order.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import defaultdict
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from floodgate.broker.admission import policy
from floodgate.broker.admission.contract import (
    CANCELLED,
    SHED,
    SUPERSEDED,
    Admission,
    AlreadyDead,
    AlreadySent,
    Ask,
    CallFamily,
    Dead,
    Decision,
    Exhausted,
    Go,
    Released,
    Retrying,
    Scope,
    Sent,
    Settlement,
    Standing,
    Unreachable,
    Unsettled,
    Wait,
)
from floodgate.broker.state.redis.admission import RedisAdmission
from floodgate.broker.state.sqlite.admission import SqliteAdmission
from tests.admission_bench import HandClock, album, ask_of, settings_of, upload
from tests.admission_model import PlainModel
from tests.services import RedisServer

# Small limits, so that short histories reach them; they have the same shape as the real ones.
LIMITS = {"bot_per_second": 4, "paid_per_second": 200, "chat_per_second": 1, "group_per_minute": 3}
CHATS = (1, 2, -3, -4, "@name")
BOT_WINDOW = timedelta(seconds=1, microseconds=policy.BOT_MARGIN_US)
LEASE_SECONDS = 35
GRACE_MILLISECONDS = policy.MISSING_GRACE_US // 1000 + 1


@dataclass
class Played:
    """One job's part of the history."""

    ask: Ask
    go: Go | None = None  # while a call is in flight
    place: str | None = None  # the chat whose line and budget it uses meanwhile
    settled: bool = False
    uncertain: bool = False
    was_apart: bool = False  # its call began in a chat that turned out to be another one, with its own call


@dataclass
class Wire:
    """Telegram's view: admitted sends that were not released, by chat and in all."""

    bot: list[tuple[int, int]] = field(default_factory=list)
    chats: dict[str, list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))
    typing: dict[str, list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))

    def drop(self, chat: str | None, grant: int) -> None:
        self.bot = [one for one in self.bot if one[0] != grant]
        if chat is not None:
            self.chats[chat] = [one for one in self.chats[chat] if one[0] != grant]

    def delay(self, chat: str | None, grant: int, until: int) -> None:
        """An upload arrives at the end of its call."""
        if chat is not None:
            self.chats[chat] = [(until if at == grant else at, cost) for at, cost in self.chats[chat]]


class AdmissionMachine(RuleBasedStateMachine):
    redis_url = ""  # set by the test

    def __init__(self) -> None:
        super().__init__()
        self.clock = HandClock()
        self.directory = Path(tempfile.mkdtemp(prefix="floodgate-machine-"))
        rules = policy.policy_of(settings_of(**LIMITS))
        self.model = PlainModel(rules, self.clock)
        self.sqlite: Admission = SqliteAdmission(self.directory / "state.db", rules, self.clock)
        self.redis: Admission = RedisAdmission(self.redis_url, rules, self.clock)
        self.stores: tuple[Admission, ...] = (self.model, self.sqlite, self.redis)
        self.jobs: list[Played] = []
        self.enqueued: list[Ask] = []  # and not received by a worker
        self.wire = Wire()
        self.back = 0  # how far the clock has been set back in all: store time is at least that far ahead

    @initialize(vouched=st.booleans())
    def found(self, vouched: bool) -> None:
        if vouched:
            for store in self.stores:
                store.vouch_idle("default")

    def teardown(self) -> None:
        for store in self.stores:
            store.close()
        shutil.rmtree(self.directory)

    # Actions of workers and callers.

    @rule(
        chat=st.sampled_from(CHATS),
        priority=st.sampled_from(("bulk", "interactive")),
        method=st.sampled_from(
            ("sendMessage", "sendMessage", "editMessageText", "deleteMessage", "getChat", "answerWebAppQuery")
        ),
    )
    def new_job(self, chat: int | str, priority: str, method: str) -> None:
        self._first_ask(ask_of(chat, priority, method=method, max_attempts=2))

    @rule(
        chat=st.sampled_from((1, -3, "@name")),
        priority=st.sampled_from(("bulk", "interactive")),
        key=st.sampled_from(("a", "a", "b")),
        jobs=st.lists(
            st.tuples(
                st.sampled_from(("", "", "", "other")),
                st.sampled_from((False, False, True)),
                st.sampled_from((1, 1, 3)),
            ),
            min_size=1,
            max_size=4,
        ),
    )
    def new_jobs_with_a_key(self, chat: int | str, priority: str, key: str, jobs: list[tuple[str, bool, int]]) -> None:
        for variant, final, size in jobs:
            ask = album(chat, size, priority) if size > 1 else ask_of(chat, priority, max_attempts=2)
            self._first_ask(replace(ask, coalesce=key, variant=variant, final=final))

    @rule(
        chat=st.sampled_from((1, -3, "@name")),
        priority=st.sampled_from(("bulk", "interactive")),
        key=st.sampled_from(("a", "a", "b")),
        kinds=st.lists(
            st.sampled_from((("", False), ("", False), ("", False), ("", True), ("other", False))),
            min_size=1,
            max_size=6,
        ),
        received=st.integers(0, 2),
    )
    def enqueue_jobs_with_a_key(
        self, chat: int | str, priority: str, key: str, kinds: list[tuple[str, bool]], received: int
    ) -> None:
        asks = [
            replace(ask_of(chat, priority, max_attempts=2), coalesce=key, variant=variant, final=final)
            for variant, final in kinds
        ]
        for store in self.stores:
            store.enqueued("default", asks)
        for ask in asks[:received]:
            self._first_ask(ask)
        self.enqueued += asks[received:]

    @precondition(lambda self: self.enqueued)
    @rule(data=st.data())
    def receive_what_was_enqueued(self, data: st.DataObject) -> None:
        ask = data.draw(st.sampled_from(self.enqueued))
        self.enqueued.remove(ask)
        self._first_ask(ask)

    @precondition(lambda self: self.enqueued or any(one.ask.coalesce for one in self.jobs))
    @rule(data=st.data())
    def look_up(self, data: st.DataObject) -> None:
        ask = data.draw(st.sampled_from([one.ask for one in self.jobs if one.ask.coalesce] + self.enqueued))
        plain, *others = [store.lookup("default", ask.job_id) for store in self.stores]
        for found in others:
            assert (found is None) == (plain is None)
            assert found is None or replace(found, due=None) == replace(plain, due=None)
        one, other = (store.explain("default", ask.chat or "1", ask.job_id) for store in (self.sqlite, self.redis))
        assert one == other

    @rule(chat=st.sampled_from((1, -3)), size=st.integers(2, 6))
    def new_album(self, chat: int, size: int) -> None:
        self._first_ask(album(chat, size))

    @rule(chat=st.sampled_from((1, -3)))
    def new_upload(self, chat: int) -> None:
        self._first_ask(upload(chat))

    @rule(chat=st.sampled_from((1, 2)))
    def new_paid_job(self, chat: int) -> None:
        self._first_ask(ask_of(chat, allow_paid_broadcast=True))

    @rule(
        chat=st.sampled_from(CHATS),
        priority=st.sampled_from(("bulk", "interactive")),
        calls=st.sampled_from((1, 3, 25)),
    )
    def new_typing(self, chat: int | str, priority: str, calls: int) -> None:
        for _ in range(calls):
            ask = ask_of(chat, priority, method="sendChatAction")
            self.clock.advance(timedelta(milliseconds=1))
            decision = self._agree([store.admit(ask) for store in self.stores])
            if decision != AlreadyDead(SHED):
                assert isinstance(decision, Go)
                self.wire.typing[self.model._real(ask.chat) or ""].append((self.model.now, 1))
                for store in self.stores:
                    store.settle(ask, Sent(True), decision.grant)

    @precondition(lambda self: any(one.go is None and not one.settled for one in self.jobs))
    @rule(data=st.data())
    def become_worthless(self, data: st.DataObject) -> None:
        played = data.draw(st.sampled_from([one for one in self.jobs if one.go is None and not one.settled]))
        played.ask = replace(played.ask, worth=timedelta())
        self._admit(played)

    @rule(chat=st.sampled_from((5, 6, 7, 8, 9, 10)), priority=st.sampled_from(("bulk", "interactive")))
    def new_job_for_a_fresh_user(self, chat: int, priority: str) -> None:
        self._first_ask(ask_of(chat, priority))

    @rule(chat=st.sampled_from(CHATS), priority=st.sampled_from(("bulk", "interactive")))
    def new_job_of_a_campaign(self, chat: int | str, priority: str) -> None:
        self._first_ask(replace(ask_of(chat, priority), campaign="spring", created_ms=self.clock.now_us // 1000))

    @rule()
    def cancel_the_campaign(self) -> None:
        for store in self.stores:
            store.cancel_campaign("default", "spring", self.clock.now_us // 1000 + 1)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def ask_again(self, data: st.DataObject) -> None:
        self._admit(data.draw(st.sampled_from(self.jobs)))

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), patience=st.floats(0, 1))
    def ask_when_told(self, data: st.DataObject, patience: float) -> None:
        played = data.draw(st.sampled_from(self.jobs))
        decision = self._admit(played)
        if isinstance(decision, Wait):
            self.clock.advance(decision.delay if patience > 0.2 else decision.delay * patience)
            self._admit(played)

    @precondition(lambda self: any(one.go for one in self.jobs))
    @rule(
        data=st.data(),
        settlement=st.sampled_from(
            (
                Sent({"message_id": 1}),
                Sent(True),
                Sent(True, late=timedelta(milliseconds=70)),
                Sent(True, late=timedelta(seconds=3)),
                Dead("chat not found"),
                Dead("chat-unreachable", kept=False),
                Dead("uncertain", unanswered=True),
                Retrying(timedelta(seconds=2)),
                Retrying(timedelta(seconds=1), unanswered=True),
                Retrying(timedelta(seconds=1), unanswered=True),
                Retrying(timedelta(seconds=1), charged=False, unanswered=True),
                Retrying(timedelta(milliseconds=300), charged=False),
                Released(),
            )
        ),
        call_seconds=st.sampled_from((0.0, 0.1, 4.0)),
    )
    def settle(self, data: st.DataObject, settlement: Settlement, call_seconds: float) -> None:
        played = data.draw(st.sampled_from([one for one in self.jobs if one.go]))
        self.clock.advance(call_seconds)
        assert played.go is not None
        for store in self.stores:
            store.settle(played.ask, settlement, played.go.grant)
        if isinstance(settlement, Released) or (isinstance(settlement, Retrying) and not settlement.charged):
            assert played.go.grant is not None
            self.wire.drop(played.place, played.go.grant)
        elif played.ask.upload:
            self.wire.delay(played.place, played.go.grant, self.model.now)
        played.settled = isinstance(settlement, Sent | Dead)
        played.go = None

    @precondition(lambda self: any(one.go is None and not one.settled for one in self.jobs))
    @rule(data=st.data())
    def expire_a_waiting_job(self, data: st.DataObject) -> None:
        played = data.draw(st.sampled_from([one for one in self.jobs if one.go is None and not one.settled]))
        for store in self.stores:
            store.settle(played.ask, Dead("expired"))
        played.settled = True

    @precondition(lambda self: any(one.go for one in self.jobs))
    @rule(data=st.data(), renew=st.booleans())
    def lose_a_worker(self, data: st.DataObject, renew: bool) -> None:
        played = data.draw(st.sampled_from([one for one in self.jobs if one.go]))
        played.go, played.uncertain = None, True
        self.clock.advance(LEASE_SECONDS + 1)
        decision = self._admit(played)
        assert isinstance(decision, Unsettled), decision
        if renew:
            self._decided(played, self._agree([store.renew_unsettled(played.ask) for store in self.stores]))

    @rule(chat=st.sampled_from(("1", "-3", None)), seconds=st.sampled_from((1, 5, 600)))
    def pause(self, chat: str | None, seconds: int) -> None:
        for store in self.stores:
            store.pause("default", chat, timedelta(seconds=seconds), "test")

    @rule(chat=st.sampled_from(("1", None)))
    def resume(self, chat: str | None) -> None:
        assert len({store.resume("default", chat) for store in self.stores}) == 1

    @rule(
        chat=st.sampled_from(("1", "1", "2", "-3", "5", "@name", None)),
        seconds=st.sampled_from((1, 1, 90)),
        family=st.sampled_from(CallFamily),
    )
    def too_many_requests(self, chat: str | None, seconds: int, family: CallFamily) -> None:
        found = {store.too_many_requests("default", chat, timedelta(seconds=seconds), family) for store in self.stores}
        assert len(found) == 1

    @rule(chat=st.sampled_from(("1", "-3", "@name")))
    def turn_out_unreachable(self, chat: str) -> None:
        for store in self.stores:
            store.mark_unreachable("default", chat, "Forbidden: bot was blocked by the user")

    @rule(chat=st.sampled_from(("1", "-3", "@name")))
    def hear_from(self, chat: str) -> None:
        assert len({store.heard_from("default", chat) for store in self.stores}) == 1

    @precondition(lambda self: any(one.settled and not one.ask.coalesce for one in self.jobs))
    @rule(data=st.data())
    def reopen(self, data: st.DataObject) -> None:
        played = data.draw(st.sampled_from([one for one in self.jobs if one.settled and not one.ask.coalesce]))
        plain, *others = [store.reopen("default", played.ask.job_id) for store in self.stores]
        assert others == [plain, plain]
        assert plain is not None
        if plain.standing is Standing.DEAD:
            played.settled = played.uncertain = False

    @rule(pair=st.sampled_from((("-3", "-1001"), ("@name", "-1002"), ("@name", "-4"), ("-4", "-1001"))))
    def migrate(self, pair: tuple[str, str]) -> None:
        for store in self.stores:
            store.migrate("default", *pair)
        old, new = pair[0], self.model._real(pair[1])
        assert new is not None
        for one in pair:
            self.wire.typing.pop(one, None)  # a chat that turns out to be another one has its own budget of typing
        moved = self.wire.chats.pop(old, [])
        # Two chats that turn out to be one may together exceed the limit of one.
        self.wire.chats[new] = [] if moved and self.wire.chats[new] else moved or self.wire.chats[new]
        occupied = any(one.go is not None and one.place == new for one in self.jobs)
        for played in self.jobs:
            if played.go is not None and played.place == old:
                played.place, played.was_apart = new, occupied

    @rule(milliseconds=st.sampled_from((1, 20, 250, 1100, 5000, 61_000, GRACE_MILLISECONDS)))
    def time_passes(self, milliseconds: int) -> None:
        self.clock.advance(milliseconds / 1000)

    @rule(seconds=st.sampled_from((1, 30, 3600)))
    def the_clock_goes_back(self, seconds: int) -> None:
        for played in self.jobs:
            if played.go is not None and self.model.now - (played.go.grant or 0) >= LEASE_SECONDS * 10**6:
                played.go, played.uncertain = None, True  # its lease has expired and may have been taken over already
        self.clock.advance(-seconds)

    # Invariants.

    @invariant()
    def no_window_is_exceeded(self) -> None:
        assert_within(self.wire.bot, 4, 1_000_000)
        for chat, sends in self.wire.chats.items():
            assert_within(sends, 1, 1_000_000)
            if chat.startswith(("-", "@")):
                assert_within(sends, 3, 60_000_000)
        for sends in self.wire.typing.values():
            assert_within(sends, 20, 5_000_000)
            assert_within(sends, 40, 30_000_000)

    @invariant()
    def one_call_at_a_time_in_a_chat(self) -> None:
        calls = [one for one in self.jobs if one.go and policy.line_of(one.ask) is not None and not one.was_apart]
        ordered = [one.place for one in calls]
        assert len(ordered) == len(set(ordered))

    @invariant()
    def the_stores_explain_alike(self) -> None:
        for played in self.jobs[-1:]:
            chat, job = played.ask.chat or "1", played.ask.job_id
            one, other = (store.explain("default", chat, job) for store in (self.sqlite, self.redis))
            assert one == other

    @invariant()
    def they_count_alike(self) -> None:
        plain, *others = (store.snapshot("default") for store in self.stores)
        assert all(store.waiting("default") == plain.waiting for store in self.stores)
        for seen in others:
            assert (seen.waiting, seen.dead, seen.sending) == (plain.waiting, plain.dead, plain.sending)
            assert seen.unreachable == plain.unreachable
            assert seen.not_kept == plain.not_kept
            assert seen.outage == plain.outage
            assert seen.per_second_limit == plain.per_second_limit
            assert seen.oldest.keys() == plain.oldest.keys()
            assert seen.slowed_chats == plain.slowed_chats
            assert seen.slowed == plain.slowed
            assert {(pause.chat, pause.remaining) for pause in seen.pauses} == {
                (pause.chat, pause.remaining) for pause in plain.pauses
            }
            assert [line.length for line in seen.longest_lines] == [line.length for line in plain.longest_lines]
            if len(plain.longest_lines) < 10:  # beyond that, ties may be cut off differently
                assert set(seen.longest_lines) == set(plain.longest_lines)

    def _first_ask(self, ask: Ask) -> None:
        self.clock.advance(timedelta(microseconds=1))  # no two jobs arrive at once
        self.jobs.append(Played(ask))
        self._admit(self.jobs[-1])

    def _admit(self, played: Played) -> Decision:
        self.clock.advance(timedelta(microseconds=1))
        decision = self._agree([store.admit(played.ask) for store in self.stores])
        return self._decided(played, decision)

    def _agree(self, decisions: list[Decision]) -> Decision:
        plain, one, other = decisions
        assert one == other, f"SQLite: {one}, Redis: {other}, model: {plain}"
        assert outline(one) == outline(plain), f"stores: {one}, model: {plain}"
        return one

    def _tell(self, ask: Ask, decision: Decision) -> None:
        """The model expects the job back when the stores said so, because it does not estimate places in a line."""
        if isinstance(decision, Wait) and decision.why != "lease":
            self.model.expect(ask, decision.delay)

    def _decided(self, played: Played, decision: Decision) -> Decision:
        self._tell(played.ask, decision)
        match decision:
            case Go(chat=chat, grant=grant):
                assert not played.settled
                assert grant is not None
                assert (chat == played.ask.chat) or not str(played.ask.chat).startswith("@"), (
                    "a name is sent to as a name"
                )
                played.go, played.was_apart = decision, False
                played.place = self.model.bots["default"].jobs[played.ask.job_id].chat or chat
                self._send(played.ask, played.place, grant)
            case AlreadyDead(reason=reason) if not played.settled:
                shed = reason == SHED and played.ask.worth is not None
                superseded = reason == SUPERSEDED and played.ask.coalesce is not None and not played.ask.final
                assert shed or superseded or (reason, played.ask.campaign) == (CANCELLED, "spring")
                played.settled = True
            case AlreadySent() | AlreadyDead():
                assert played.settled
            case Unsettled(age=age):
                assert played.uncertain or (played.go is not None and age >= timedelta(seconds=LEASE_SECONDS))
                played.go, played.uncertain = None, True
            case Wait(delay=delay):
                assert not played.settled
                assert delay > timedelta(0)
            case Unreachable():
                assert not played.settled
            case Exhausted(lost=lost):
                assert not played.settled
                assert lost >= played.ask.calls_left
                played.go, played.uncertain = None, False
        return decision

    def _send(self, ask: Ask, chat: str | None, grant: int) -> None:
        for other in self.jobs:
            if other.ask is not ask and other.go is not None and grant - (other.go.grant or 0) >= LEASE_SECONDS * 10**6:
                other.go, other.uncertain = None, True  # its lease has expired: it has no call in flight
        if not ask.paid:
            self.wire.bot.append((grant, policy.bot_cost(ask)))
        if chat is not None:
            self.wire.chats[chat].append((grant, policy.chat_cost(ask)))


def outline(decision: Decision) -> object:
    """The part of a decision the model must match. Waits in a line or behind a full window are the stores' estimate."""
    if not isinstance(decision, Wait):
        return decision
    exact = decision.why in ("rate", "lease", "outage") and (
        decision.scope is Scope.CHAT or decision.delay < BOT_WINDOW
    )
    return decision if exact else (decision.scope, decision.why)


def assert_within(sends: list[tuple[int, int]], cap: int, span_us: int) -> None:
    """At most ``cap`` in any span; a call that alone exceeds it must be alone."""
    for first, _ in sends:
        inside = [cost for at, cost in sends if first <= at < first + span_us and cost]
        assert sum(inside) <= cap or len(inside) == 1, (first, sends)


def test_both_stores_behave_like_the_model(redis_server: RedisServer) -> None:
    class Machine(AdmissionMachine):
        redis_url = redis_server.url

        def teardown(self) -> None:
            super().teardown()
            redis_server.flush()

    redis_server.flush()
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=50,
            stateful_step_count=40,
            # A failure is reported as found: shrinking takes minutes, and the model explains the failure.
            phases=[Phase.explicit, Phase.reuse, Phase.generate],
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )
