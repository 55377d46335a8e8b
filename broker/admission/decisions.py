"""The rules of admission, on one bot's books in one transaction.

Overview: ``admit`` turns away a job whose chat is unreachable. Any other joins its line, and then three questions are
asked. Is it the job's turn in its chat? Is there budget for the chat? Is there budget for the bot? The first that is
answered "no" makes the wait, and the wait ends when, by all that is known now, the answer turns. So a job parked at the
end of a long line is parked once.

State (``rows``): a job is WAITING in its line, SENDING under a lease, or ended. A line is its waiting jobs by place;
the units that joined before a job tell how far behind the head it is, without counting. A chat knows the call under
way in it.

Invariants:
- only the head of a line goes, and only if no call is under way in the chat;
- a job keeps its place until it ends, also over retries, lost workers and migrations;
- what is spent was within every window at that moment, in the store's time, which never goes back.

Failure handling: a worker that dies in mid-call leaves a lease. When it ends the job is LOST: it is the head of its
line again, and Unknown to whoever asks for it. Such calls are counted, so a job that kills its workers is Exhausted in
the end; so is one that is handed back before its call again and again. A head that does not come back (its message was
purged) is stepped over after a grace that starts when a later job first finds it missing, and has its old place should
it come after all.

``admission.lua`` mirrors this module for Redis; the contract and property suites hold both to one model.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from floodgate.broker.admission import circuit as circuits
from floodgate.broker.admission import policy, windows
from floodgate.broker.admission.contract import (
    CANCELLED,
    AlreadyDead,
    AlreadySent,
    Ask,
    Dead,
    Decision,
    Exhausted,
    Go,
    Record,
    Released,
    Retrying,
    Scope,
    Sent,
    Settlement,
    Standing,
    Unknown,
    Unreachable,
    Wait,
)
from floodgate.broker.admission.results import dead_record, dead_text, sent_record, sent_text
from floodgate.broker.admission.rows import Alias, Books, ChatRow, JobRow, LineRow, State
from floodgate.broker.messages.chats import ChatKind, chat_kind
from floodgate.broker.messages.job import Priority


def admit(books: Books, ask: Ask) -> Decision:
    job = books.job(ask.job_id)
    if job is not None and (known := _known(books, job) or _exhausted(job, ask)) is not None:
        return known
    chat = _open_chat(books, policy.line_of(ask) if job is None else job.chat)
    if chat is not None and (refused := _refused(books, ask, chat)) is not None:
        books.save_chat(chat)  # opening it may have taken back a lost call
        return refused
    job = _join(books, ask, job, chat)
    wait = _chat_wait(books, job, chat) or _bot_wait(books, ask, job)
    return _go(books, ask, job, chat) if wait is None else _park(books, job, chat, wait)


def renew_unknown(books: Books, ask: Ask) -> Decision:
    job = books.job(ask.job_id)
    if job is not None and _uncertain(job, books.now):
        chat = _open_chat(books, job.chat, reclaim=False)
        if job.state is State.SENDING and chat is not None:
            _end_call(chat, job)
            chat.line(job.priority).length += 1
            books.save_chat(chat)
        job.state = State.ABSENT if job.state is State.ABSENT_LOST else State.WAITING
        job.since, job.due = 0, books.now
        books.save_job(job)
    return admit(books, ask)


def settle(books: Books, ask: Ask, settlement: Settlement, grant: int | None) -> None:
    job = books.job(ask.job_id) or _stranger(books, ask)
    if job.state.ended:
        return
    chat = _open_chat(books, job.chat, reclaim=False)
    if grant is not None and grant == job.since and _tells_of_telegram(ask, settlement):
        _note_answer(books, job, settlement)
    match settlement:
        case Sent(late=late):
            if job.state is State.SENDING and late and grant in (None, job.since):
                _count_later(books, job, chat, min(micros(late), books.now - job.since))
            if chat is not None and policy.needs_chat(ask):
                chat.refused_at = 0
            books.keep_outcome(job, sent_text(settlement))
            _end(books, job, chat, State.SENT)
        case Dead():
            if not settlement.kept:
                books.list_not_kept(ask.job_id, ask.chat, settlement.reason)
            _bury(books, job, chat, settlement)
        case Retrying(delay=delay, charged=charged):
            if job.number and grant in (None, job.since):
                job.handed_back = 0
                _put_back(books, job, chat, micros(delay), charged)
        case Released():
            if job.number and grant in (None, job.since):
                job.handed_back += 1
                _put_back(books, job, chat, 0, charged=False)


def cancel(books: Books, ask: Ask) -> Record:
    job = books.job(ask.job_id) or _stranger(books, ask)
    if job.state in (State.WAITING, State.ABSENT):
        _bury(books, job, _open_chat(books, job.chat, reclaim=False), Dead(CANCELLED))
    return record(books, job)


def lookup(books: Books, job_id: str) -> Record | None:
    job = books.job(job_id)
    return None if job is None else record(books, job)


def reopen(books: Books, job_id: str) -> Record | None:
    found = lookup(books, job_id)
    if found is not None and found.standing is Standing.DEAD:
        books.drop_job(job_id)
    return found


def mark_unreachable(books: Books, chat_key: str, why: str) -> None:
    chat = _open_chat(books, chat_key)
    assert chat is not None
    chat.refused_at, chat.refused_why = books.now, why[: policy.WHY_LENGTH]
    books.save_chat(chat)


def heard_from(books: Books, chat_key: str) -> bool:
    chat = books.chat(_real_chat(books, chat_key))
    if chat is None or not chat.refused_at:
        return False
    held = _holds(books, chat)
    chat.refused_at = 0
    books.save_chat(chat)
    return held


def count_dropped(books: Books, reason: str, letters: int) -> None:
    books.count_dropped(reason, letters)


def pause(books: Books, chat_key: str | None, duration: timedelta, why: str) -> None:
    until = books.now + micros(duration)
    if chat_key is None:
        _pause_bot(books, until, why)
        return
    chat = _open_chat(books, chat_key)
    assert chat is not None
    _pause_chat(chat, until, why)
    books.save_chat(chat)


def too_many_requests(books: Books, chat_key: str | None, retry_after: timedelta) -> Scope:
    wait = micros(retry_after)
    duration = timedelta(microseconds=wait + policy.PAUSE_MARGIN_US)
    if chat_key is not None:
        chat_key = _real_chat(books, chat_key)
        pause(books, chat_key, duration, "429")
    bot = books.bot
    refusal = policy.Refusal(chat_key or "", books.now, wait > policy.LONG_WAIT_US)
    bot.refusals = policy.recent([*bot.refusals, refusal], books.now)
    blamed = policy.blames_bot(bot.refusals)
    if blamed:
        if bot.paused_until <= books.now:  # those still under way when the pause began teach nothing new
            bot.permille = policy.slower(policy.learned_permille(bot.permille, bot.slowed_at, books.now))
            bot.slowed_at = books.now
        pause(books, None, duration, "429")
    books.save_bot()
    return Scope.BOT if blamed else Scope.CHAT


def resume(books: Books, chat_key: str | None) -> None:
    if chat_key is not None:
        chat = _open_chat(books, chat_key)
        assert chat is not None
        chat.paused_until = 0
        books.save_chat(chat)
    elif books.bot.paused_until > books.now or _outage_since(books):
        books.bot.paused_until, books.bot.circuit = 0, None
        for paid in (False, True):
            if (pace := books.policy.rates(books.bot.bot).pace(paid)) is not None:
                books.bot.budget(paid).arrival_us = books.now + pace.tolerance_us
        books.save_bot()


def migrate(books: Books, old_key: str, new_key: str) -> None:
    if chat_kind(old_key) is ChatKind.NAME:
        _resolve(books, old_key, _real_chat(books, new_key))
        return
    old_key, new_key = _real_chat(books, old_key), _real_chat(books, new_key)
    if old_key != new_key:
        books.move_aliases(old_key, new_key)
        books.save_alias(old_key, Alias(new_key, 0))
        _move_chat(books, old_key, new_key)


def _resolve(books: Books, name: str, real: str) -> None:
    """The name stands for the chat for another while. Jobs that wait in the line of another chat stay there."""
    alias = books.alias(name)
    if alias is None or alias.real != real or alias.until - books.now < policy.NAME_US // 2:
        books.save_alias(name, Alias(real, books.now + policy.NAME_US))
        _move_chat(books, name, real)


def _move_chat(books: Books, old_key: str, new_key: str) -> None:
    old = books.chat(old_key)
    if old is None:
        return
    new = books.chat(new_key) or ChatRow(new_key, [])
    for priority in Priority:
        _move_line(books, old, new, priority)
    if old.sending is not None and new.sending is None:
        new.sending, new.sending_since, new.lease_end = old.sending, old.sending_since, old.lease_end
    if old.sending is not None and (job := books.job(old.sending)) is not None:
        job.chat = new_key
        books.save_job(job)
    new.log = windows.merged(old.log, new.log, _windows(books, new_key))
    new.last_place = max(old.last_place, new.last_place)
    new.rest_until = max(old.rest_until, new.rest_until)
    _pause_chat(new, old.paused_until, old.pause_why)
    books.drop_chat(old_key)
    books.save_chat(new)


def vouch_idle(books: Books) -> None:
    bot = books.bot
    if not bot.granted:
        bot.born = 0
        bot.free, bot.paid = windows.Budget([]), windows.Budget([])
        books.save_bot()


def record(books: Books, job: JobRow) -> Record:
    found = _record(books, job)
    return found if job.content is None else replace(found, content=job.content)


def _record(books: Books, job: JobRow) -> Record:
    match job.state:
        case State.SENT:
            return sent_record(books.outcome(job))
        case State.DEAD:
            return dead_record(books.outcome(job) or job.reason or "")
        case State.SENDING:
            return Record(Standing.SENDING)
        case _:
            return Record(Standing.WAITING, due=timedelta(microseconds=max(0, job.due - books.now)))


def micros(duration: timedelta) -> int:
    return duration // timedelta(microseconds=1)


def _known(books: Books, job: JobRow) -> Decision | None:
    """The answer for a job whose fate is known or open; None for one that waits."""
    if _uncertain(job, books.now):
        return Unknown(timedelta(microseconds=books.now - job.since))
    match job.state:
        case State.SENT:
            return AlreadySent(record(books, job).result, job.content)
        case State.DEAD:
            return AlreadyDead(job.reason or "", job.content)
        case State.SENDING:
            return _wait(job.lease_end - books.now, Scope.CHAT, "lease")
        case _:
            return None


def _exhausted(job: JobRow, ask: Ask) -> Exhausted | None:
    """Whether the job has lost all its calls with their workers, or never comes to one."""
    if job.unsettled < ask.calls_left and job.handed_back < policy.HANDED_BACK_MOST:
        return None
    return Exhausted(job.unsettled, job.handed_back)


def _uncertain(job: JobRow, now: int) -> bool:
    if job.state is State.SENDING:
        return job.lease_end <= now
    return job.state in (State.LOST, State.ABSENT_LOST)


def _wait(delay_us: int, scope: Scope, why: str) -> Wait:
    return Wait(timedelta(microseconds=delay_us), scope, why)


# The chat: its line, its call under way, its windows.


def _open_chat(books: Books, key: str | None, *, reclaim: bool = True) -> ChatRow | None:
    if key is None:
        return None
    key = _real_chat(books, key)
    chat = books.chat(key)
    if chat is None:
        return ChatRow(key, _first_log(books, key))
    if reclaim and chat.sending is not None and chat.lease_end <= books.now:
        _reclaim(books, chat, chat.sending)
    return chat


def _real_chat(books: Books, key: str) -> str:
    """The chat that a chat key stands for. A name does so as long as jobs wait there, so that none overtakes them."""
    alias = books.alias(key)
    if alias is None:
        return key
    lapsed = alias.until and alias.until <= books.now
    if lapsed and ((chat := books.chat(alias.real)) is None or not chat.busy):
        return key
    return alias.real


def _windows(books: Books, key: str) -> tuple[windows.Window, ...]:
    """The chat's windows; those given for a name that stands for it, if none are for its id."""
    bot = books.bot
    if bot.aliases and (bot.bot, key) not in books.policy.chats:
        for name in books.policy.names.get(bot.bot, ()):
            alias = books.alias(name)
            if alias is not None and alias.real == key:
                return books.policy.windows(bot.bot, name)
    return books.policy.windows(bot.bot, key)


def _refused(books: Books, ask: Ask, chat: ChatRow) -> Unreachable | None:
    """Whether Telegram need not be asked about this chat again."""
    if not policy.needs_chat(ask) or not _holds(books, chat):
        return None
    spared = policy.spares(books.now - chat.refused_at, ask.priority)
    return Unreachable(chat.refused_why) if spared else None


def _holds(books: Books, chat: ChatRow) -> bool:
    """Whether the chat is held for unreachable."""
    return chat.refused_at > 0 and books.now - chat.refused_at < books.policy.unreachable_us


def _first_log(books: Books, key: str) -> windows.Log:
    """In a store that is new, a chat may have got messages that nobody remembers."""
    own = _windows(books, key)
    longest = max(own, key=lambda window: window.span_us, default=None)
    if longest is None or books.now >= books.bot.born + longest.span_us:
        return []
    step = longest.span_us // longest.cap
    return [books.bot.born - longest.span_us + step * (unit + 1) for unit in range(longest.cap)]


def _reclaim(books: Books, chat: ChatRow, job_id: str) -> None:
    """The worker that was sending is gone: its job is the head of its line again, until somebody asks for it."""
    chat.sending = None
    job = books.job(job_id)
    if job is not None and job.state is State.SENDING:
        job.state, job.due = State.LOST, job.lease_end
        chat.line(job.priority).length += 1
        books.save_job(job)


def _join(books: Books, ask: Ask, job: JobRow | None, chat: ChatRow | None) -> JobRow:
    """The job, in its line: at the end at first sight, at its old place if it had been stepped over."""
    if job is None:
        job = JobRow(ask.job_id, None, ask.priority, paid=ask.paid, units=policy.chat_cost(ask), content=ask.content)
        if chat is not None:
            line = chat.line(job.priority)
            job.chat = chat.chat
            job.place = chat.last_place = max(books.now, chat.last_place + 1)
            job.units_before = line.units
            line.units += job.units
            line.length += 1
    elif job.state is State.ABSENT:
        job.state = State.WAITING
        if chat is not None:
            job.chat = chat.chat
            chat.line(job.priority).length += 1
    return job


def _chat_wait(books: Books, job: JobRow, chat: ChatRow | None) -> Wait | None:
    """How long the job waits for its turn in its chat; None if it is its turn."""
    if chat is None:
        return None
    head = _head(books, chat, job)
    rival_units = _rival_units(books, chat, job)
    own = _windows(books, chat.chat)
    why = _hindrance(books, chat, job, head, rival_units, own)
    if why is None:
        return None
    start = max(books.now, chat.paused_until, chat.rest_until, _bot_held_until(books))
    if head is not job:
        start = max(start, head.due)
    ahead = job.units_before - head.units_before + (rival_units or 0)
    turn = windows.turn_at(chat.log, own, start, ahead, job.units)
    return _wait(max(turn - books.now, _least_wait(books, chat, job, why, ahead)), Scope.CHAT, why)


def _hindrance(
    books: Books,
    chat: ChatRow,
    job: JobRow,
    head: JobRow,
    rival_units: int | None,
    own: tuple[windows.Window, ...],
) -> str | None:
    if chat.paused_until > books.now:
        return "pause"
    if chat.sending is not None:
        return "in-flight"
    if head is not job or rival_units is not None:
        return "line"
    if max(chat.rest_until, windows.free_at(chat.log, own, job.units)) > books.now:
        return "rate"
    return None


def _least_wait(books: Books, chat: ChatRow, job: JobRow, why: str, ahead: int) -> int:
    """The bound on how often a job asks when no rate says when its turn comes."""
    if why == "in-flight":
        return policy.in_flight_poll(books.now - chat.sending_since)
    if why == "line":
        missing_since = chat.line(job.priority).missing_since
        if missing_since:
            return min(policy.MISSING_POLL_US, missing_since + policy.MISSING_GRACE_US - books.now)
        return min(policy.PLACE_US * (ahead + 1), policy.IN_FLIGHT_MAX_US)
    return 1


def _head(books: Books, chat: ChatRow, job: JobRow) -> JobRow:
    """The head of the job's line, the job itself included. Steps over heads that are missing for too long."""
    line = chat.line(job.priority)
    head = _first(books, chat, job) if line.length > 1 else job
    if head is job or head.due + policy.LATE_US >= books.now:
        line.missing_since = 0
    elif not line.missing_since:
        line.missing_since = books.now
    elif line.missing_since + policy.MISSING_GRACE_US <= books.now:
        line.missing_since = 0
        overdue = books.now - policy.MISSING_GRACE_US
        line.length -= books.step_over(chat.chat, job.priority, job.place, overdue)
        head = _first(books, chat, job)
    return head


def _first(books: Books, chat: ChatRow, job: JobRow) -> JobRow:
    head = books.head(chat.chat, job.priority)
    if head is None or head.job_id == job.job_id or head.place > job.place:
        return job
    return head


def _rival_units(books: Books, chat: ChatRow, job: JobRow) -> int | None:
    """Units of the chat's other line that go before this job; None if none of its jobs does.

    Interactive goes before bulk, but after some such turns bulk has one. A line claims its turn only with a head that
    is due about now, so that a head which waits for its retry, or is missing, holds up its own line only.
    """
    bulk_asks = job.priority is Priority.BULK
    rival = chat.interactive if bulk_asks else chat.bulk
    bulks_turn = chat.overtaken >= policy.INTERACTIVE_TURNS
    if not rival.length or bulk_asks is bulks_turn:
        return None
    head = books.head(chat.chat, Priority.INTERACTIVE if bulk_asks else Priority.BULK)
    if head is None or not _claims(books, chat, head):
        return None
    if not bulk_asks:
        return head.units
    return min(rival.units - head.units_before, policy.INTERACTIVE_TURNS - chat.overtaken)


def _claims(books: Books, chat: ChatRow, head: JobRow) -> bool:
    free = windows.free_at(chat.log, _windows(books, chat.chat), 1)
    soon = max(books.now, free, chat.rest_until, chat.paused_until) + policy.CLAIM_US
    return head.state is State.WAITING and books.now - policy.LATE_US <= head.due <= soon


def _end_call(chat: ChatRow, job: JobRow) -> None:
    if chat.sending == job.job_id:
        chat.sending = None


def _pause_chat(chat: ChatRow, until: int, why: str) -> None:
    if until > chat.paused_until:
        chat.paused_until, chat.pause_why = until, why


def _move_line(books: Books, old: ChatRow, new: ChatRow, priority: Priority) -> None:
    """Merge a line into that of the new chat, by time of first sight."""
    jobs = sorted([*books.line(old.chat, priority), *books.line(new.chat, priority)], key=lambda job: job.place)
    units = place = 0
    for job in jobs:
        place = max(job.place, place + 1)  # two chats may have given the same
        job.chat, job.place, job.units_before = new.chat, place, units
        units += job.units
        books.save_job(job)
    new.last_place = max(new.last_place, place)
    line = LineRow(len(jobs), units)
    if priority is Priority.INTERACTIVE:
        new.interactive = line
    else:
        new.bulk = line


# The bot: its pause and its budget.


def _bot_wait(books: Books, ask: Ask, job: JobRow) -> Wait | None:
    """How long the job waits for its bot; None if it may go. Those who wait are ranked: see ``JobRow.rank``."""
    if policy.is_answer(ask):
        return None
    bot, now = books.bot, books.now
    cost = policy.bot_cost(ask)
    pace = books.policy.rates(bot.bot).pace(ask.paid)
    metered = pace is not None and cost > 0
    rank = (job.rank or now + (policy.AGING_US if job.priority is Priority.BULK else 0)) if metered else 0
    if bot.paused_until > now:
        job.rank, job.bot_units = rank, cost
        return _wait(bot.paused_until - now, Scope.BOT, "pause")
    if bot.circuit is not None and (delay := circuits.wait_us(bot.circuit, now)):
        job.rank, job.bot_units = rank, cost
        return _wait(delay, Scope.BOT, "outage")
    if pace is None or not cost:
        return None
    pace = pace.slowed(policy.learned_permille(bot.permille, bot.slowed_at, now))
    ahead = books.units_ahead(job, rank, now - policy.WAITER_GRACE_US)
    turn = windows.bot_turn_at(bot.budget(ask.paid), pace, ahead, cost, now)
    if turn <= now:
        return None
    job.rank, job.bot_units = rank, cost
    return _wait(turn - now, Scope.BOT, "rate")


def _pause_bot(books: Books, until: int, why: str) -> None:
    bot = books.bot
    if until <= bot.paused_until:
        return
    bot.paused_until, bot.pause_why = until, why
    _resume_evenly(books, until)


def _resume_evenly(books: Books, at: int) -> None:
    bot = books.bot
    for paid in (False, True):
        if (pace := books.policy.rates(bot.bot).pace(paid)) is not None:
            windows.resume_evenly(bot.budget(paid), pace, at)
    books.save_bot()


# The bot's circuit: whether Telegram answers at all.


def _outage_since(books: Books) -> int:
    return books.bot.circuit.open_since if books.bot.circuit is not None else 0


def _bot_held_until(books: Books) -> int:
    bot = books.bot
    return bot.paused_until if bot.circuit is None else max(bot.paused_until, circuits.held_until(bot.circuit))


def _tells_of_telegram(ask: Ask, settlement: Settlement) -> bool:
    """Whether the circuit shall hear of it. An answer to a query is never a probe: it can only end an outage."""
    if not policy.is_answer(ask):
        return True
    match settlement:
        case Released() | Retrying(unanswered=True) | Dead(unanswered=True):
            return False
        case _:
            return True


def _note_answer(books: Books, job: JobRow, settlement: Settlement) -> None:
    """Learn from a settled call whether Telegram answers."""
    circuit = books.bot.circuit
    match settlement:
        case Retrying(unanswered=True) | Dead(unanswered=True):
            circuit = books.bot.circuit = circuit or circuits.Circuit()
            circuits.miss(circuit, job.chat or "", job.since, books.now)
            books.save_bot()
        case Released() if circuit is not None:
            circuits.drop_probe(circuit, job.since, books.now)
            books.save_bot()
        case Sent() | Retrying() | Dead() if circuit is not None and circuits.is_closed_by(circuit, job.since):
            books.bot.circuit = None
            if circuit.open_since:
                _resume_evenly(books, books.now)
            books.save_bot()


# What follows from a decision.


def _park(books: Books, job: JobRow, chat: ChatRow | None, wait: Wait) -> Wait:
    job.due = books.now + micros(wait.delay)
    if wait.scope is Scope.CHAT and job.rank:
        books.stop_waiting(job)
    books.save_job(job)
    if job.rank:
        books.wait_for_bot(job)
    if chat is not None:
        books.save_chat(chat)
    return wait


def _go(books: Books, ask: Ask, job: JobRow, chat: ChatRow | None) -> Go:
    books.stop_waiting(job)
    job.state, job.since, job.due = State.SENDING, books.now, books.now
    job.lease_end = books.now + micros(ask.lease)
    job.bot_units = policy.bot_cost(ask)
    job.unsettled += 1
    probe = _outage_since(books) > 0 and not policy.is_answer(ask)
    if probe and books.bot.circuit is not None:
        circuits.begin_probe(books.bot.circuit, job.since, job.lease_end)
    _spend_bot(books, job)
    if chat is not None:
        _begin_call(books, chat, job)
        books.save_chat(chat)
    books.save_job(job)
    return Go(_address(books, ask, chat), books.now, probe)


def _address(books: Books, ask: Ask, chat: ChatRow | None) -> str | None:
    if ask.kind is ChatKind.NAME:
        return ask.chat
    return chat.chat if chat is not None else ask.chat and _real_chat(books, ask.chat)


def _begin_call(books: Books, chat: ChatRow, job: JobRow) -> None:
    chat.line(job.priority).length -= 1
    chat.sending, chat.sending_since, chat.lease_end = job.job_id, books.now, job.lease_end
    chat.log = windows.spend(chat.log, _windows(books, chat.chat), job.units, books.now)
    bulk_waits = chat.bulk.length > 0
    chat.overtaken = chat.overtaken + 1 if bulk_waits and job.priority is Priority.INTERACTIVE else 0


def _spend_bot(books: Books, job: JobRow) -> None:
    bot, now = books.bot, books.now
    bot.granted = now
    pace = books.policy.rates(bot.bot).pace(job.paid)
    if pace is not None and job.bot_units:
        permille = policy.learned_permille(bot.permille, bot.slowed_at, now)
        windows.bot_spend(bot.budget(job.paid), pace.slowed(permille), job.bot_units, now)
    if now - bot.minute >= policy.MINUTE:
        bot.last_minute = bot.this_minute if now - bot.minute < 2 * policy.MINUTE else 0
        bot.minute, bot.this_minute = now - now % policy.MINUTE, 0
    bot.this_minute += job.bot_units
    books.save_bot()


def _stranger(books: Books, ask: Ask) -> JobRow:
    """A job that ends without having been admitted: it expired, or the store was lost during its call."""
    return JobRow(ask.job_id, policy.line_of(ask), ask.priority, State.ABSENT, paid=ask.paid, content=ask.content)


def _bury(books: Books, job: JobRow, chat: ChatRow | None, dead: Dead) -> None:
    job.reason = dead.reason
    if dead.error is not None:
        books.keep_outcome(job, dead_text(dead))
    _end(books, job, chat, State.DEAD)


def _end(books: Books, job: JobRow, chat: ChatRow | None, state: State) -> None:
    if chat is not None:
        _leave(books, chat, job)
        books.save_chat(chat)
    books.stop_waiting(job)
    job.state, job.since = state, books.now
    # What nobody asks of an ended job: a row of small numbers is a small row, and it is kept for days.
    job.chat, job.place, job.units_before, job.due, job.lease_end = None, 0, 0, 0, 0
    job.unsettled = job.handed_back = 0
    books.save_job(job)


def _leave(books: Books, chat: ChatRow, job: JobRow) -> None:
    """Take the job out of its line, or end its call."""
    if chat.sending == job.job_id:
        chat.sending = None
        chat.rest_until = books.now + policy.rest_after(books.now - job.since)
    elif job.state.in_line:
        chat.line(job.priority).length -= 1


def _put_back(books: Books, job: JobRow, chat: ChatRow | None, delay_us: int, charged: bool) -> None:
    """Back into the line at its old place, which is its head, until ``delay_us`` is over."""
    if job.since:
        job.unsettled -= 1
        if not charged:
            _refund(books, job, chat)
    if chat is not None:
        _leave(books, chat, job)
        chat.line(job.priority).length += 1
        books.save_chat(chat)
    books.stop_waiting(job)
    job.state, job.since, job.due = State.WAITING, 0, books.now + delay_us
    books.save_job(job)


def _count_later(books: Books, job: JobRow, chat: ChatRow | None, late: int) -> None:
    """The call arrived late: its units count from then. The chat is saved by the caller."""
    if chat is not None:
        own = _windows(books, chat.chat)
        chat.log = windows.moved(chat.log, own, job.units, job.since, late)
    pace = books.policy.rates(books.bot.bot).pace(job.paid)
    if pace is not None and pace.window is not None:
        budget = books.bot.budget(job.paid)
        budget.log = windows.moved(budget.log, (pace.window,), job.bot_units, job.since, late)
        books.save_bot()


def _refund(books: Books, job: JobRow, chat: ChatRow | None) -> None:
    if chat is not None:
        own = _windows(books, chat.chat)
        chat.log = windows.refund(chat.log, own, job.units, job.since)
    pace = books.policy.rates(books.bot.bot).pace(job.paid)
    if pace is not None:
        windows.bot_refund(books.bot.budget(job.paid), pace, job.bot_units, job.since)
        books.save_bot()
