"""The rules of admission, applied to one bot's rows in one transaction.

Overview: ``admit`` rejects a job whose chat is unreachable. Any other job joins its line, and then three conditions are
checked: it must be the job's turn in its chat, the chat must have budget, and the bot must have budget. The first
condition that fails determines the wait, which lasts until the condition is expected to hold, as far as is known now.
So a job at the end of a long line is parked only once. A job that is not worth its wait is shed instead, and typing
and drafts never wait: they are sent at once or shed.

State (``rows``): a job is WAITING in its line, SENDING under a lease, or ended. A line is its waiting jobs in the order
of their places; the units that joined before a job give its distance from the head without counting. A chat records its
call in flight.

Invariants:
- only the head of a line is sent, and only if no call is in flight in the chat;
- a job keeps its place until it ends, across retries, lost workers and migrations;
- units are spent only within every window, in the store's time, which never goes back.

Failure handling: a worker that dies during a call leaves a lease. When the lease ends, the job is LOST: it is the head
of its line again, and the next ask for it gets Unsettled. Such calls are counted, so a job that kills its workers is
eventually Exhausted, and so is one that keeps being handed back before its call. A head that does not return (its
message was purged) is stepped over after a grace period, which starts when a later job first finds it missing; it
regains its old place if it does return.

A chat that has answered 429 gets a learned pace for the family of the refused call: a distance between its calls of
that family, besides its windows. It delays no other family, but a line keeps its order: a message behind a slowed edit
of the same priority waits for it.

Jobs with a key: the newest takes the place, and the rank among the jobs that wait for the bot, of the one that waits
under the same key. As it takes a place and never makes one, nobody behind it waits longer, and however often that
happens, the place moves on as if one job held it. Jobs that no worker has received have no place. Of those, producers
report the newest, and all between it and the first end at once.

Jobs that supersede each other form a chain: each row names the first of them, whose row names the latest. If two chains
meet (jobs superseded in RabbitMQ, and others in the line), the first of one names the first of the other.

``admission.lua`` mirrors this module for Redis; the contract and property suites test both against one model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from floodgate.broker.admission import circuit as circuits
from floodgate.broker.admission import policy, rebuilding, windows
from floodgate.broker.admission.contract import (
    CANCELLED,
    FLOOD_WAIT,
    SHED,
    SUPERSEDED,
    AlreadyDead,
    AlreadySent,
    Ask,
    CallFamily,
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
    Unreachable,
    Unsettled,
    Wait,
)
from floodgate.broker.admission.result_feed import dead_record, dead_text, sent_record, sent_text
from floodgate.broker.admission.rows import (
    Alias,
    ChatRow,
    EnqueuedRow,
    JobRow,
    LineRow,
    SlowedRow,
    State,
    TypingRow,
    UnitOfWork,
)
from floodgate.broker.messages.chats import ChatKind, chat_kind
from floodgate.broker.messages.job import Priority


def admit(work: UnitOfWork, ask: Ask) -> Decision:
    """As ``Admission.admit``."""
    job = work.job(ask.job_id)
    if job is not None and (known := _known(work, job) or _exhausted(job, ask)) is not None:
        return known
    if ask.created_ms < work.cancelled_before(ask.campaign):
        return AlreadyDead(CANCELLED, _take_back(work, ask, job, listed=True).content)
    if policy.is_typing(ask):
        return _admit_typing(work, ask)
    chat = _open_chat(work, policy.line_of(ask) if job is None else job.chat)
    if chat is not None and (refused := _refused(work, ask, chat)) is not None:
        work.save_chat(chat)  # opening it may have taken back a lost call
        return refused
    earlier = _supersedable(work, ask, chat) if job is None else None
    job = _join(work, ask, job, chat, earlier)
    slow = None if chat is None else slowed_of(work, chat.chat, policy.family_of(ask))
    wait = _backing_off(work, earlier) or _chat_wait(work, job, chat, slow) or _bot_wait(work, ask, job)
    if not policy.outlives(ask, micros(wait.delay) if wait is not None else 0):
        return _shed(work, ask, job, chat)
    if earlier is not None:
        _supersede(work, earlier, job, chat)
    return _go(work, ask, job, chat, slow) if wait is None else _park(work, job, chat, wait)


def enqueued(work: UnitOfWork, asks: Sequence[Ask]) -> None:
    """As ``Admission.enqueued``."""
    for ask in asks:
        if (job := work.job(ask.job_id)) is None or not job.state.ended:
            _note_enqueued(work, ask)


def _note_enqueued(work: UnitOfWork, ask: Ask) -> None:
    assert ask.chat is not None and ask.coalesce is not None
    row, over = work.enqueued(ask.chat, ask.priority, ask.coalesce), work.now + policy.ENQUEUED_US
    if row is not None and ask.job_id in (row.first, row.newest):
        return
    if row is None or not _may_follow(work, row, ask):
        what, kind = (ask.chat, ask.priority, ask.coalesce), (ask.variant, ask.campaign)
        row = EnqueuedRow(*what, *kind, ask.final, first=ask.job_id, newest=ask.job_id, over=over)
    else:
        if row.first != row.newest and work.job(row.first) is None:
            row.newest_chain = _supersede_unseen(work, row, ask)
        elif row.first != row.newest:
            row.first, row.first_chain, row.newest_chain, row.over = row.newest, row.newest_chain, None, over
        row.newest, row.final = ask.job_id, ask.final
    work.save_enqueued(row)


def _may_follow(work: UnitOfWork, row: EnqueuedRow, ask: Ask) -> bool:
    """Whether a job may supersede the newest one that was enqueued under its key, as soon as another one is to stay."""
    of_its_kind = (row.variant, row.campaign) == (ask.variant, ask.campaign)
    return of_its_kind and not row.final and work.job(row.newest) is None


def _supersede_unseen(work: UnitOfWork, row: EnqueuedRow, ask: Ask) -> str:
    """End the newest job that was enqueued under a key, whose message is still in RabbitMQ; return the first of its
    chain."""
    earlier = JobRow(row.newest, None, ask.priority, State.ABSENT, chain=row.newest_chain)
    first = _first_of_chain(work, earlier)
    _end_superseded(work, earlier, first, ask.job_id, None)
    return first.job_id


def renew_unsettled(work: UnitOfWork, ask: Ask) -> Decision:
    """As ``Admission.renew_unsettled``."""
    job = work.job(ask.job_id)
    if job is not None and _uncertain(job, work.now):
        chat = _open_chat(work, job.chat, reclaim=False)
        if job.state is State.SENDING and chat is not None:
            _end_call(chat, job)
            chat.line(job.priority).length += 1
            work.save_chat(chat)
        job.state = State.ABSENT if job.state is State.ABSENT_LOST else State.WAITING
        job.since, job.due = 0, work.now
        work.save_job(job)
    return admit(work, ask)


def settle(work: UnitOfWork, ask: Ask, settlement: Settlement, grant: int | None) -> None:
    """As ``Admission.settle``."""
    job = work.job(ask.job_id) or _stranger(work, ask)
    if job.state.ended:
        return
    chat = _open_chat(work, job.chat, reclaim=False)
    if grant is not None and grant == job.since and _tells_of_telegram(ask, settlement):
        _note_answer(work, job, settlement)
    if job.state is State.SENDING and grant in (None, job.since):
        _count_later(work, ask, job, chat, *policy.delays_us(ask, settlement, work.now - job.since))
    match settlement:
        case Sent():
            if chat is not None and policy.needs_chat(ask):
                chat.refused_at = 0
            work.keep_outcome(job, sent_text(settlement))
            _end(work, job, chat, State.SENT)
        case Dead():
            if not settlement.kept:
                _account_for(work, ask, settlement.reason)
            _bury(work, job, chat, settlement)
        case Retrying(delay=delay, charged=charged):
            if job.number and grant in (None, job.since):
                job.handed_back = 0
                _put_back(work, ask, job, chat, micros(delay), charged)
        case Released():
            if job.number and grant in (None, job.since):
                job.handed_back += 1
                _put_back(work, ask, job, chat, 0, charged=False)


def rejoin(work: UnitOfWork, ask: Ask, delay: timedelta, grant: int | None) -> None:
    """Enter a waiting job that a process remembers, in a store that went back in time: it asks again in ``delay``. With
    a grant, a call for it is under way, whose lease ends in ``delay``.

    Jobs are entered in the order in which they first asked, so they have their order in the line again.
    """
    job = work.job(ask.job_id)
    if job is not None and job.state.ended:
        return
    chat = _open_chat(work, policy.line_of(ask) if job is None else job.chat, reclaim=False)
    due = work.now + micros(delay)
    if job is None:
        earlier = _supersedable(work, ask, chat)
        job = _join(work, ask, None, chat, earlier)
        if earlier is not None:
            _supersede(work, earlier, job, chat)
    elif grant is None or job.since != grant:
        _put_back(work, ask, job, chat, 0, charged=True)
    if grant is None:
        job.due = due
    elif job.since != grant:
        _resume_call(job, chat, grant, due)
    job.due = max(job.due, work.now)
    work.save_job(job)
    if chat is not None:
        work.save_chat(chat)


def _resume_call(job: JobRow, chat: ChatRow | None, grant: int, lease_end: int) -> None:
    """Enter a call that is under way. What it spent is in the cautious budgets."""
    job.state, job.since, job.lease_end = State.SENDING, grant, lease_end
    job.unsettled += 1
    if chat is not None:
        chat.line(job.priority).length -= 1
        if chat.sending is None:
            chat.sending, chat.sending_since, chat.lease_end = job.job_id, grant, lease_end


def cancel(work: UnitOfWork, ask: Ask, listed: bool) -> Record:
    """As ``Admission.cancel``."""
    return record(work, _take_back(work, ask, work.job(ask.job_id), listed))


def cancel_campaign(work: UnitOfWork, campaign: str | None, before_ms: int) -> None:
    """As ``Admission.cancel_campaign``."""
    work.cancel_before(campaign, before_ms)


def lookup(work: UnitOfWork, job_id: str) -> Record | None:
    """As ``Admission.lookup``."""
    job = work.job(job_id)
    return None if job is None else record(work, job)


def reopen(work: UnitOfWork, job_id: str) -> Record | None:
    """As ``Admission.reopen``."""
    job = work.job(job_id)
    if job is None:
        return None
    found = record(work, job)
    if job.state is State.DEAD and job.reason != SUPERSEDED:
        work.drop_job(job_id)
    return found


def mark_unreachable(work: UnitOfWork, chat_key: str, why: str) -> None:
    """As ``Admission.mark_unreachable``."""
    chat = _open_chat(work, chat_key)
    assert chat is not None
    chat.refused_at, chat.refused_why = work.now, why[: policy.WHY_LENGTH]
    work.save_chat(chat)


def heard_from(work: UnitOfWork, chat_key: str) -> bool:
    """As ``Admission.heard_from``."""
    chat = work.chat(real_chat(work, chat_key))
    if chat is None or not chat.refused_at:
        return False
    held = is_unreachable(work, chat)
    chat.refused_at = 0
    work.save_chat(chat)
    return held


def count_dropped(work: UnitOfWork, reason: str, letters: int) -> None:
    """As ``Admission.count_dropped``."""
    work.count_dropped(reason, letters)


def pause(work: UnitOfWork, chat_key: str | None, duration: timedelta, why: str) -> None:
    """As ``Admission.pause``."""
    until = work.now + micros(duration)
    if chat_key is None:
        _pause_bot(work, until, why)
        return
    chat = _open_chat(work, chat_key)
    assert chat is not None
    _pause_chat(chat, until, why)
    work.save_chat(chat)


def too_many_requests(work: UnitOfWork, chat_key: str | None, retry_after: timedelta, family: CallFamily) -> Scope:
    """As ``Admission.too_many_requests``."""
    chat_key = None if chat_key is None else real_chat(work, chat_key)
    until = work.now + micros(retry_after) + policy.PAUSE_MARGIN_US
    if family is CallFamily.TYPING:
        _pause_typing(work, chat_key, until)
        _slow_down(work, chat_key, family, until)
        return Scope.CHAT
    if _flood_wait(work, chat_key, retry_after):
        return Scope.BOT
    _slow_down(work, chat_key, family, until)
    return Scope.CHAT


def _flood_wait(work: UnitOfWork, chat_key: str | None, retry_after: timedelta) -> bool:
    """Pause the chat after a 429, and the bot if it is to blame; return whether it is."""
    wait = micros(retry_after)
    duration = timedelta(microseconds=wait + policy.PAUSE_MARGIN_US)
    if chat_key is not None:
        pause(work, chat_key, duration, FLOOD_WAIT)
    bot = work.bot
    refusal = policy.FloodWait(chat_key or "", work.now, wait > policy.LONG_WAIT_US)
    bot.refusals = policy.recent([*bot.refusals, refusal], work.now)
    blamed = policy.blames_bot(bot.refusals)
    if blamed:
        if bot.paused_until <= work.now:  # calls already in flight when the pause began are no new evidence
            bot.permille = policy.slower(policy.learned_permille(bot.permille, bot.slowed_at, work.now))
            bot.slowed_at = work.now
        pause(work, None, duration, FLOOD_WAIT)
    work.save_bot()
    return blamed


def resume(work: UnitOfWork, chat_key: str | None) -> bool:
    """As ``Admission.resume``."""
    return _resume_bot(work) if chat_key is None else _resume_chat(work, chat_key)


def _resume_chat(work: UnitOfWork, key: str) -> bool:
    chat = work.chat(real_chat(work, key))
    if chat is None or chat.paused_until <= work.now:
        return False
    chat.paused_until = 0
    work.save_chat(chat)
    return True


def _resume_bot(work: UnitOfWork) -> bool:
    bot = work.bot
    if bot.paused_until <= work.now and not outage_since(work):
        return False
    bot.paused_until, bot.circuit = 0, None
    for paid in (False, True):
        if (pace := work.policy.rates(bot.bot).pace(paid)) is not None:
            bot.budget(paid).arrival_us = work.now + pace.tolerance_us
    work.save_bot()
    return True


def migrate(work: UnitOfWork, old_key: str, new_key: str) -> None:
    """As ``Admission.migrate``."""
    if chat_kind(old_key) is ChatKind.NAME:
        _resolve(work, old_key, real_chat(work, new_key))
        return
    old_key, new_key = real_chat(work, old_key), real_chat(work, new_key)
    if old_key != new_key:
        work.move_aliases(old_key, new_key)
        work.save_alias(old_key, Alias(new_key, 0))
        _move_chat(work, old_key, new_key)


def _resolve(work: UnitOfWork, name: str, real: str) -> None:
    """Make a name stand for a chat for another ``NAME_US``. Jobs already in the line of a different chat stay there."""
    alias = work.alias(name)
    if alias is None or alias.real != real or alias.until - work.now < policy.NAME_US // 2:
        work.save_alias(name, Alias(real, work.now + policy.NAME_US))
        _move_chat(work, name, real)


def _move_chat(work: UnitOfWork, old_key: str, new_key: str) -> None:
    _move_paces(work, old_key, new_key)
    old = work.chat(old_key)
    if old is None:
        return
    new = work.chat(new_key) or ChatRow(new_key, [])
    for priority in Priority:
        _move_line(work, old, new, priority)
    if old.sending is not None and new.sending is None:
        new.sending, new.sending_since, new.lease_end = old.sending, old.sending_since, old.lease_end
    if old.sending is not None and (job := work.job(old.sending)) is not None:
        job.chat = new_key
        work.save_job(job)
    new.log = windows.merged(old.log, new.log, windows_of(work, new_key))
    new.last_place = max(old.last_place, new.last_place)
    new.rest_until = max(old.rest_until, new.rest_until)
    _pause_chat(new, old.paused_until, old.pause_why)
    work.drop_chat(old_key)
    work.save_chat(new)


def vouch_idle(work: UnitOfWork) -> None:
    """As ``Admission.vouch_idle``."""
    bot = work.bot
    if not bot.granted:
        bot.born = 0
        bot.free, bot.paid = windows.Budget([]), windows.Budget([])
        work.save_bot()


def record(work: UnitOfWork, job: JobRow) -> Record:
    """The ledger's record of a job, or of the one that took its place."""
    first, last = _chain(work, job)
    found = _record(work, last)
    if last is not job:
        found = replace(found, chain=first.job_id)
    return found if job.content is None else replace(found, content=job.content)


def _chain(work: UnitOfWork, job: JobRow) -> tuple[JobRow, JobRow | None]:
    """The first and the last of the jobs that superseded each other, for one that was superseded; for any other, the
    job itself. The last is None if no worker has received it."""
    first, last = job, job
    for _ in range(policy.CHAIN_STEPS):
        if last.reason != SUPERSEDED or last.chain is None:
            break
        first = last
        if (following := work.job(last.chain)) is None:
            return first, None
        last = following
    return first, last


def _record(work: UnitOfWork, job: JobRow | None) -> Record:
    if job is None:
        return Record(Standing.WAITING, due=timedelta())
    match job.state:
        case State.SENT:
            return sent_record(work.outcome(job))
        case State.DEAD:
            return dead_record(work.outcome(job) or job.reason or "")
        case State.SENDING:
            return Record(Standing.SENDING)
        case _:
            return Record(Standing.WAITING, due=timedelta(microseconds=max(0, _due(work, job) - work.now)))


def _due(work: UnitOfWork, job: JobRow) -> int:
    """When a waiting job is expected to be sent. During a pause it asks again earlier than that."""
    chat = work.chat(real_chat(work, job.chat)) if job.chat is not None else None
    return max(job.due, work.bot.paused_until, chat.paused_until if chat is not None else 0)


def micros(duration: timedelta) -> int:
    """A duration in whole microseconds."""
    return duration // timedelta(microseconds=1)


def _known(work: UnitOfWork, job: JobRow) -> Decision | None:
    """The decision for a job that has ended, is being sent or is unsettled; None for one that waits."""
    if _uncertain(job, work.now):
        return Unsettled(timedelta(microseconds=work.now - job.since))
    match job.state:
        case State.SENT:
            return AlreadySent(record(work, job).result, job.content)
        case State.DEAD:
            return AlreadyDead(job.reason or "", job.content)
        case State.SENDING:
            if rebuilding.is_doubtful(work.bot, job):
                job.due = work.now
                work.save_job(job)
            return _wait(job.lease_end - work.now, Scope.CHAT, "lease")
        case _:
            return None


def _exhausted(job: JobRow, ask: Ask) -> Exhausted | None:
    """``Exhausted`` if the job has lost all its calls with their workers, or was handed back too often; else None."""
    if job.unsettled < ask.calls_left and job.handed_back < policy.HANDED_BACK_MOST:
        return None
    return Exhausted(job.unsettled, job.handed_back)


def _uncertain(job: JobRow, now: int) -> bool:
    if job.state is State.SENDING:
        return job.lease_end <= now
    return job.state in (State.LOST, State.ABSENT_LOST)


def _wait(delay_us: int, scope: Scope, why: str) -> Wait:
    return Wait(timedelta(microseconds=delay_us), scope, why)


# The chat: its line, its call in flight, its windows.


def _open_chat(work: UnitOfWork, key: str | None, *, reclaim: bool = True) -> ChatRow | None:
    if key is None:
        return None
    key = real_chat(work, key)
    chat = work.chat(key)
    if chat is None:
        chat = ChatRow(key, first_log(work, windows_of(work, key)))
    elif reclaim and chat.sending is not None:
        _reclaim_lost(work, chat, chat.sending)
    if work.bot.rebuilt:
        chat.log = rebuilding.cautious_log(work.bot, chat.log, windows_of(work, key), work.now)
    return chat


def real_chat(work: UnitOfWork, key: str) -> str:
    """The chat that a chat key stands for. A name's alias holds while jobs wait there, so that none is overtaken."""
    alias = work.alias(key)
    if alias is None:
        return key
    lapsed = alias.until and alias.until <= work.now
    if lapsed and ((chat := work.chat(alias.real)) is None or not chat.busy):
        return key
    return alias.real


def windows_of(work: UnitOfWork, key: str) -> tuple[windows.Window, ...]:
    """The chat's windows. If none are configured for its id, those of a name that stands for it apply."""
    bot = work.bot
    if bot.aliases and (bot.bot, key) not in work.policy.chats:
        for name in work.policy.names.get(bot.bot, ()):
            alias = work.alias(name)
            if alias is not None and alias.real == key:
                return work.policy.windows(bot.bot, name)
    return work.policy.windows(bot.bot, key)


def _refused(work: UnitOfWork, ask: Ask, chat: ChatRow) -> Unreachable | None:
    """``Unreachable`` if the job must not be sent because Telegram has refused the chat; else None."""
    if not policy.needs_chat(ask) or not is_unreachable(work, chat):
        return None
    spared = policy.spares(work.now - chat.refused_at, ask.priority)
    return Unreachable(chat.refused_why) if spared else None


def is_unreachable(work: UnitOfWork, chat: ChatRow) -> bool:
    """Whether the chat is marked unreachable."""
    return chat.refused_at > 0 and work.now - chat.refused_at < work.policy.unreachable_us


def first_log(work: UnitOfWork, own: tuple[windows.Window, ...]) -> windows.Log:
    """The initial log of a chat, or of its typing. In a new store it is full, because the chat may have got messages
    just before."""
    longest = max(own, key=lambda window: window.span_us, default=None)
    if longest is None or work.now >= work.bot.born + longest.span_us:
        return []
    step = longest.span_us // longest.cap
    return [work.bot.born - longest.span_us + step * (unit + 1) for unit in range(longest.cap)]


def _reclaim_lost(work: UnitOfWork, chat: ChatRow, job_id: str) -> None:
    """Take back a call whose lease has ended, or that ended in what the store has forgotten: its job is the head of its
    line again, until a worker asks for it."""
    expired = chat.lease_end <= work.now
    if not expired and chat.sending_since >= work.bot.rebuilt:
        return
    job = work.job(job_id)
    if not expired and job is not None and not rebuilding.is_doubtful(work.bot, job):
        return
    chat.sending = None
    if job is not None and job.state is State.SENDING:
        job.state = State.LOST
        if expired:
            job.due = job.lease_end
        chat.line(job.priority).length += 1
        work.save_job(job)


def _join(
    work: UnitOfWork, ask: Ask, job: JobRow | None, chat: ChatRow | None, earlier: JobRow | None = None
) -> JobRow:
    """Put a job in its line: a new one at the end or at the place of an earlier one, which still stands there, and one
    that had been stepped over at its old place."""
    if job is None:
        job = JobRow(ask.job_id, None, ask.priority, paid=ask.paid, units=policy.chat_cost(ask), content=ask.content)
        if chat is not None:
            line = chat.line(job.priority)
            job.chat = chat.chat
            job.key, job.variant, job.final = ask.coalesce, ask.variant, ask.final
            job.chain = _superseded_unseen(work, ask)
            line.length += 1
            if earlier is not None:
                _take_place(work, job, earlier, line)
            else:
                job.place = chat.last_place = max(work.now, chat.last_place + 1)
                job.units_before = line.units
                line.units += job.units
    elif job.state is State.ABSENT:
        job.state = State.WAITING
        if chat is not None:
            job.chat = chat.chat
            chat.line(job.priority).length += 1
    return job


def _superseded_unseen(work: UnitOfWork, ask: Ask) -> str | None:
    """The first of the jobs that a new one superseded before a worker received it."""
    if ask.coalesce is None or ask.chat is None:
        return None
    row = work.enqueued(ask.chat, ask.priority, ask.coalesce)
    return None if row is None else row.chain_of(ask.job_id)


def _supersedable(work: UnitOfWork, ask: Ask, chat: ChatRow | None) -> JobRow | None:
    """The waiting job whose place a new job takes; None if it joins the end of its line."""
    if chat is None or ask.coalesce is None:
        return None
    last = work.last_of_key(chat.chat, ask.priority, ask.coalesce)
    return None if last is None or last.final or last.variant != ask.variant else last


def _take_place(work: UnitOfWork, job: JobRow, earlier: JobRow, line: LineRow) -> None:
    job.place, job.units_before, job.lease_end = earlier.place, earlier.units_before, earlier.lease_end
    line.units += max(0, job.units - earlier.units)
    if earlier.paid == job.paid:
        job.rank = earlier.rank
    work.stop_waiting(replace(earlier))  # a copy: it keeps its rank if the job is shed


def _backing_off(work: UnitOfWork, earlier: JobRow | None) -> Wait | None:
    """The wait that an earlier job had left before it was to repeat a call."""
    if earlier is None or not earlier.lease_end or earlier.due <= work.now:
        return None
    return _wait(earlier.due - work.now, Scope.CHAT, "line")


def _supersede(work: UnitOfWork, earlier: JobRow, job: JobRow, chat: ChatRow | None) -> None:
    """End an earlier job, whose place the job has taken."""
    first = _first_of_chain(work, earlier)
    if job.chain is not None and job.chain != first.job_id:
        _lead_on(work, job.chain, first.job_id)
    job.chain = first.job_id
    _end_superseded(work, earlier, first, job.job_id, chat)


def _first_of_chain(work: UnitOfWork, earlier: JobRow) -> JobRow:
    """The first of the jobs that led to one that is being superseded; that one itself if there were none."""
    found = work.job(earlier.chain) if earlier.chain is not None else None
    return earlier if found is None else found


def _end_superseded(work: UnitOfWork, earlier: JobRow, first: JobRow, successor: str, chat: ChatRow | None) -> None:
    """End a job that another supersedes, and let the first of their chain lead to that one."""
    earlier.chain = first.job_id
    first.chain = successor
    work.count_not_kept(SUPERSEDED)
    _bury(work, earlier, chat, Dead(SUPERSEDED, kept=False))
    if first is not earlier:
        work.save_job(first)


def _lead_on(work: UnitOfWork, job_id: str, chain: str) -> None:
    """Make the first job of one chain lead to the first of another, and tell those that wait for its end."""
    first = work.job(job_id)
    if first is not None:
        first.chain, first.since = chain, work.now
        work.keep_outcome(first, dead_text(Dead(SUPERSEDED)))
        work.save_job(first)


def _chat_wait(work: UnitOfWork, job: JobRow, chat: ChatRow | None, slow: SlowedRow | None) -> Wait | None:
    """The job's wait for its turn in its chat; None if it is its turn."""
    if chat is None:
        return None
    head = _head(work, chat, job)
    rival_units = rival_units_of(work, chat, job)
    own = windows_of(work, chat.chat)
    next_at = 0 if slow is None else slow.next_at
    why = _hindrance(work, chat, job, head, rival_units, max(next_at, windows.free_at(chat.log, own, job.units)))
    if why is None:
        return None
    held_until = max(chat.paused_until, bot_held_until(work))
    start = max(work.now, chat.rest_until, min(held_until, work.now + policy.PAUSE_POLL_US))
    if head is not job:
        start = max(start, head.due)
    ahead = job.units_before - head.units_before + (rival_units or 0)
    if why == "line" and head is not job and _is_missing(work, chat, job) and rebuilding.is_doubtful(work.bot, head):
        return _wait(_missing_until(work, chat, job, head) - work.now, Scope.CHAT, why)
    turn = max(next_at, windows.turn_at(chat.log, own, start, ahead, job.units))
    return _wait(max(turn - work.now, _least_wait(work, chat, job, head, why, ahead)), Scope.CHAT, why)


def _hindrance(
    work: UnitOfWork,
    chat: ChatRow,
    job: JobRow,
    head: JobRow,
    rival_units: int | None,
    free_at: int,
) -> str | None:
    if chat.paused_until > work.now:
        return "pause"
    if chat.sending is not None:
        return "in-flight"
    if head is not job or rival_units is not None:
        return "line"
    if max(chat.rest_until, free_at) > work.now:
        return "rate"
    return None


def _least_wait(work: UnitOfWork, chat: ChatRow, job: JobRow, head: JobRow, why: str, ahead: int) -> int:
    """The minimum wait when no rate limit determines the job's turn; bounds how often it asks."""
    if why == "in-flight":
        return policy.in_flight_poll(work.now - chat.sending_since)
    if why == "line":
        if _is_missing(work, chat, job):
            return min(policy.MISSING_POLL_US, _missing_until(work, chat, job, head) - work.now)
        return min(policy.PLACE_US * (ahead + 1), policy.IN_FLIGHT_MAX_US)
    return 1


def _head(work: UnitOfWork, chat: ChatRow, job: JobRow) -> JobRow:
    """The head of the job's line, which may be the job itself. Steps over heads that have been missing too long."""
    line = chat.line(job.priority)
    head = _first(work, chat, job) if line.length > 1 else job
    if head is job or head.due + policy.LATE_US >= work.now:
        line.missing_since = 0
    elif not line.missing_since or line.missing_since < work.bot.rebuilt:
        line.missing_since = work.now
    elif _missing_until(work, chat, job, head) <= work.now:
        line.missing_since = 0
        overdue = max(work.bot.rebuilt, work.now - policy.MISSING_GRACE_US)
        line.length -= work.step_over(chat.chat, job.priority, job.place, overdue)
        head = _first(work, chat, job)
    return head


def _is_missing(work: UnitOfWork, chat: ChatRow, job: JobRow) -> bool:
    return chat.line(job.priority).missing_since > 0


def _missing_until(work: UnitOfWork, chat: ChatRow, job: JobRow, head: JobRow) -> int:
    return chat.line(job.priority).missing_since + rebuilding.grace_us(work.bot, head)


def _first(work: UnitOfWork, chat: ChatRow, job: JobRow) -> JobRow:
    head = work.head(chat.chat, job.priority)
    if head is None or head.place >= job.place:  # at the same place stands the job itself, or one that it supersedes
        return job
    return head


def rival_units_of(work: UnitOfWork, chat: ChatRow, job: JobRow) -> int | None:
    """The units of the chat's other line that go before this job; None if it has no turn now.

    Interactive jobs go before bulk jobs, but after several such turns bulk has one. A line claims its turn only if its
    head is due about now, so that a head that is missing or waits for its retry holds up only its own line.
    """
    bulk_asks = job.priority is Priority.BULK
    rival = chat.interactive if bulk_asks else chat.bulk
    bulks_turn = chat.overtaken >= policy.INTERACTIVE_TURNS
    if not rival.length or bulk_asks is bulks_turn:
        return None
    head = work.head(chat.chat, Priority.INTERACTIVE if bulk_asks else Priority.BULK)
    if head is None or not _claims(work, chat, head):
        return None
    if not bulk_asks:
        return head.units
    return min(rival.units - head.units_before, policy.INTERACTIVE_TURNS - chat.overtaken)


def _claims(work: UnitOfWork, chat: ChatRow, head: JobRow) -> bool:
    free = windows.free_at(chat.log, windows_of(work, chat.chat), 1)
    soon = max(work.now, free, chat.rest_until, chat.paused_until) + policy.CLAIM_US
    return head.state is State.WAITING and work.now - policy.LATE_US <= head.due <= soon


def _end_call(chat: ChatRow, job: JobRow) -> None:
    if chat.sending == job.job_id:
        chat.sending = None


def _pause_chat(chat: ChatRow, until: int, why: str) -> None:
    if until > chat.paused_until:
        chat.paused_until, chat.pause_why = until, why


def _move_line(work: UnitOfWork, old: ChatRow, new: ChatRow, priority: Priority) -> None:
    """Merge a line into that of the new chat, in order of place."""
    jobs = sorted([*work.line(old.chat, priority), *work.line(new.chat, priority)], key=lambda job: job.place)
    units = place = 0
    for job in jobs:
        place = max(job.place, place + 1)  # both chats may have used the same place
        job.chat, job.place, job.units_before = new.chat, place, units
        units += job.units
        work.save_job(job)
    new.last_place = max(new.last_place, place)
    line = LineRow(len(jobs), units)
    if priority is Priority.INTERACTIVE:
        new.interactive = line
    else:
        new.bulk = line


# Typing and drafts: sent at once, or shed.


def _admit_typing(work: UnitOfWork, ask: Ask) -> Go | AlreadyDead:
    """Permit typing that need not wait, and shed any other. It has no row before it ends: nothing waits for it."""
    key = None if ask.chat is None else real_chat(work, ask.chat)
    own = work.policy.rates(work.bot.bot).typing
    typing = None if key is None else _typing(work, key, own)
    chat = None if key is None else work.chat(key)
    slow = None if key is None else slowed_of(work, key, CallFamily.TYPING)
    held_up = _holds_up_typing(work, ask, chat) or (slow is not None and slow.next_at > work.now)
    if not policy.outlives(ask, 0) or held_up or (typing and _spent(work, typing, own)):
        return _shed(work, ask, _stranger(work, ask), None)
    if typing is not None and own:
        typing.log = windows.spend(typing.log, own, 1, work.now)
        work.save_typing(typing)
    if slow is not None:
        _space_out(work, slow, own, 1)
    return Go(_address(work, ask, None))


def _holds_up_typing(work: UnitOfWork, ask: Ask, chat: ChatRow | None) -> bool:
    """Whether the call would go during a pause or an outage, or behind a message to the same chat."""
    bot = work.bot
    if bot.paused_until > work.now or outage_since(work):
        return True
    if chat is None:
        return False
    calling = chat.sending is not None and chat.lease_end > work.now
    behind_bulk = ask.priority is Priority.BULK and chat.bulk.length > 0
    return chat.paused_until > work.now or calling or chat.interactive.length > 0 or behind_bulk


def _typing(work: UnitOfWork, key: str, own: tuple[windows.Window, ...]) -> TypingRow:
    """A chat's typing. Its budget starts cautiously, as the chat's own does."""
    typing = work.typing(key)
    log = typing.log or first_log(work, own)
    typing.log = rebuilding.cautious_log(work.bot, log, own, work.now)
    return typing


def _spent(work: UnitOfWork, typing: TypingRow, own: tuple[windows.Window, ...]) -> bool:
    return max(typing.paused_until, windows.free_at(typing.log, own, 1)) > work.now


def _pause_typing(work: UnitOfWork, chat_key: str | None, until: int) -> None:
    if chat_key is not None:
        typing = work.typing(chat_key)
        typing.paused_until = max(typing.paused_until, until)
        work.save_typing(typing)


# The learned pace of a family of calls in a chat, after a 429.


def slowed_of(work: UnitOfWork, key: str, family: CallFamily) -> SlowedRow | None:
    """The learned pace of a family in a chat; None if it has its full pace."""
    if work.bot.slowed_until <= work.now or family is CallFamily.OTHER:
        return None
    slow = work.slowed(key, family)
    if slow is not None and work.bot.rebuilt > max(slow.granted_at, slow.slowed_at):
        own = windows_of_family(work, key, family)
        slow.next_at = max(slow.next_at, work.bot.unknown_until + policy.spacing_us(own, slow.permille_at(work.now)))
    return slow


def windows_of_family(work: UnitOfWork, key: str, family: CallFamily) -> tuple[windows.Window, ...]:
    """The windows that a family's calls in a chat keep."""
    return work.policy.rates(work.bot.bot).typing if family is CallFamily.TYPING else windows_of(work, key)


def _slow_down(work: UnitOfWork, key: str | None, family: CallFamily, until: int) -> None:
    """Widen the distance between a family's calls in a chat from ``until`` on, the end of a wait."""
    if key is None or family is CallFamily.OTHER or not windows_of_family(work, key, family):
        return
    slow = slowed_of(work, key, family) or SlowedRow(key, family)
    if slow.slowed_at <= work.now:  # calls already in flight when the wait began are no new evidence
        slow.permille = policy.wider(slow.permille_at(work.now))
    slow.slowed_at = slow.next_at = max(slow.slowed_at, until)
    slow.granted_at = 0  # nothing that is settled later moves the end of the wait
    _save_pace(work, slow)


def restore_pace(work: UnitOfWork, chat_key: str, family: CallFamily, permille: int, delay: timedelta) -> None:
    """Enter a learned pace that a process remembers, in a store that went back in time: it recovers from ``delay`` on,
    the end of a wait, which is negative if that has passed. Of two paces, the one that recovers later holds.
    """
    key, until = real_chat(work, chat_key), work.now + micros(delay)
    if family is CallFamily.TYPING:
        _pause_typing(work, key, until)
    told, known = SlowedRow(key, family, permille, until, next_at=until), slowed_of(work, key, family)
    latest = max(work.now, 0 if known is None else known.recovered_at)
    if told.recovered_at > latest and windows_of_family(work, key, family):
        _save_pace(work, told)


def _save_pace(work: UnitOfWork, slow: SlowedRow) -> None:
    work.save_slowed(slow)
    work.bot.slowed_until = max(work.bot.slowed_until, slow.recovered_at)
    work.save_bot()


def _space_out(work: UnitOfWork, slow: SlowedRow, own: tuple[windows.Window, ...], units: int) -> None:
    """Note that a call of a slowed family begins."""
    slow.granted_at = work.now
    slow.next_at = work.now + units * policy.spacing_us(own, slow.permille_at(work.now))
    work.save_slowed(slow)


def _respace(work: UnitOfWork, ask: Ask, job: JobRow, chat: ChatRow | None, later_us: int | None) -> None:
    """Count a slowed family's last call from when it arrived, or with None as not made."""
    slow = None if chat is None else slowed_of(work, chat.chat, policy.family_of(ask))
    if slow is not None and slow.granted_at == job.since:
        slow.next_at = job.since if later_us is None else slow.next_at + later_us
        work.save_slowed(slow)


def _move_paces(work: UnitOfWork, old_key: str, new_key: str) -> None:
    """Let a chat take over the learned paces of one that it replaces; of two, the one that recovers later."""
    for family in policy.SLOWABLE:
        if (old := slowed_of(work, old_key, family)) is not None:
            new = slowed_of(work, new_key, family)
            if new is None or new.recovered_at < old.recovered_at:
                work.save_slowed(replace(old, chat=new_key))
            work.drop_slowed(old)


# The bot: its pause and its budget.


def _bot_wait(work: UnitOfWork, ask: Ask, job: JobRow) -> Wait | None:
    """The job's wait for its bot; None if it may go. Waiting jobs are ranked: see ``JobRow.rank``."""
    if policy.is_answer(ask):
        return None
    bot, now = work.bot, work.now
    cost = policy.bot_cost(ask)
    pace = work.policy.rates(bot.bot).pace(ask.paid)
    metered = pace is not None and cost > 0
    rank = (job.rank or now + (policy.AGING_US if job.priority is Priority.BULK else 0)) if metered else 0
    if bot.paused_until > now:
        job.rank, job.bot_units = rank, cost
        return _wait(min(bot.paused_until - now, policy.PAUSE_POLL_US), Scope.BOT, "pause")
    if bot.circuit is not None and (delay := circuits.wait_us(bot.circuit, now)):
        job.rank, job.bot_units = rank, cost
        return _wait(delay, Scope.BOT, "outage")
    if pace is None or not cost:
        return None
    pace = pace.slowed(policy.learned_permille(bot.permille, bot.slowed_at, now))
    ahead = work.units_ahead(job, rank, now - policy.WAITER_GRACE_US)
    turn = windows.bot_turn_at(bot.budget(ask.paid), pace, ahead, cost, now)
    if turn <= now:
        return None
    job.rank, job.bot_units = rank, cost
    return _wait(turn - now, Scope.BOT, "rate")


def _pause_bot(work: UnitOfWork, until: int, why: str) -> None:
    bot = work.bot
    if until <= bot.paused_until:
        return
    bot.paused_until, bot.pause_why = until, why
    _resume_evenly(work, until)


def _resume_evenly(work: UnitOfWork, at: int) -> None:
    bot = work.bot
    for paid in (False, True):
        if (pace := work.policy.rates(bot.bot).pace(paid)) is not None:
            windows.resume_evenly(bot.budget(paid), pace, at)
    work.save_bot()


# The bot's circuit: whether Telegram answers at all.


def outage_since(work: UnitOfWork) -> int:
    return work.bot.circuit.open_since if work.bot.circuit is not None else 0


def bot_held_until(work: UnitOfWork) -> int:
    bot = work.bot
    return bot.paused_until if bot.circuit is None else max(bot.paused_until, circuits.held_until(bot.circuit))


def _tells_of_telegram(ask: Ask, settlement: Settlement) -> bool:
    """Whether a settlement counts for the circuit. Answers to queries are never probes: they can only end an outage."""
    if not policy.is_answer(ask):
        return True
    match settlement:
        case Released() | Retrying(unanswered=True) | Dead(unanswered=True):
            return False
        case _:
            return True


def _note_answer(work: UnitOfWork, job: JobRow, settlement: Settlement) -> None:
    """Update the circuit after a settled call."""
    circuit = work.bot.circuit
    match settlement:
        case Retrying(unanswered=True) | Dead(unanswered=True):
            circuit = work.bot.circuit = circuit or circuits.Circuit()
            circuits.miss(circuit, job.chat or "", job.since, work.now)
            work.save_bot()
        case Released() if circuit is not None:
            circuits.drop_probe(circuit, job.since, work.now)
            work.save_bot()
        case Sent() | Retrying() | Dead() if circuit is not None and circuits.is_closed_by(circuit, job.since):
            work.bot.circuit = None
            if circuit.open_since:
                _resume_evenly(work, work.now)
            work.save_bot()


# Consequences of a decision.


def _park(work: UnitOfWork, job: JobRow, chat: ChatRow | None, wait: Wait) -> Wait:
    job.due = work.now + micros(wait.delay)
    if wait.scope is Scope.CHAT and job.rank:
        work.stop_waiting(job)
    work.save_job(job)
    if job.rank:
        work.wait_for_bot(job)
    if chat is not None:
        work.save_chat(chat)
    return wait


def _go(work: UnitOfWork, ask: Ask, job: JobRow, chat: ChatRow | None, slow: SlowedRow | None) -> Go:
    work.stop_waiting(job)
    job.state, job.since, job.due = State.SENDING, work.now, work.now
    job.lease_end = work.now + micros(ask.lease)
    job.bot_units = policy.bot_cost(ask)
    job.unsettled += 1
    probe = outage_since(work) > 0 and not policy.is_answer(ask)
    if probe and work.bot.circuit is not None:
        circuits.begin_probe(work.bot.circuit, job.since, job.lease_end)
    _spend_bot(work, job)
    if chat is not None:
        _begin_call(work, chat, job)
        work.save_chat(chat)
        if slow is not None:
            _space_out(work, slow, windows_of(work, chat.chat), job.units)
    work.save_job(job)
    return Go(_address(work, ask, chat), work.now, probe)


def _address(work: UnitOfWork, ask: Ask, chat: ChatRow | None) -> str | None:
    if ask.kind is ChatKind.NAME:
        return ask.chat
    return chat.chat if chat is not None else ask.chat and real_chat(work, ask.chat)


def _begin_call(work: UnitOfWork, chat: ChatRow, job: JobRow) -> None:
    chat.line(job.priority).length -= 1
    chat.sending, chat.sending_since, chat.lease_end = job.job_id, work.now, job.lease_end
    chat.log = windows.spend(chat.log, windows_of(work, chat.chat), job.units, work.now)
    bulk_waits = chat.bulk.length > 0
    chat.overtaken = chat.overtaken + 1 if bulk_waits and job.priority is Priority.INTERACTIVE else 0


def _spend_bot(work: UnitOfWork, job: JobRow) -> None:
    bot, now = work.bot, work.now
    bot.granted = now
    pace = work.policy.rates(bot.bot).pace(job.paid)
    if pace is not None and job.bot_units:
        permille = policy.learned_permille(bot.permille, bot.slowed_at, now)
        windows.bot_spend(bot.budget(job.paid), pace.slowed(permille), job.bot_units, now)
    if now - bot.minute >= policy.MINUTE:
        bot.last_minute = bot.this_minute if now - bot.minute < 2 * policy.MINUTE else 0
        bot.minute, bot.this_minute = now - now % policy.MINUTE, 0
    bot.this_minute += job.bot_units
    work.save_bot()


def _stranger(work: UnitOfWork, ask: Ask) -> JobRow:
    """A row for a job that ends without having been admitted: it expired, or the store was lost during its call."""
    return JobRow(ask.job_id, policy.line_of(ask), ask.priority, State.ABSENT, paid=ask.paid, content=ask.content)


def _take_back(work: UnitOfWork, ask: Ask, job: JobRow | None, listed: bool) -> JobRow:
    """End a job as cancelled, unless it has ended or may have been sent."""
    job = job or _stranger(work, ask)
    if job.state.untouched:
        if listed:
            _account_for(work, ask, CANCELLED)
        _bury(work, job, _open_chat(work, job.chat, reclaim=False), Dead(CANCELLED, kept=False))
    return job


def _shed(work: UnitOfWork, ask: Ask, job: JobRow, chat: ChatRow | None) -> AlreadyDead:
    """End a job that would be sent too late to be worth it."""
    _account_for(work, ask, SHED)
    _bury(work, job, chat, Dead(SHED, kept=False))
    return AlreadyDead(SHED, job.content)


def _account_for(work: UnitOfWork, ask: Ask, reason: str) -> None:
    """Count a job that ends without a dead letter, and list it. Jobs that were shed are too many for the list."""
    work.count_not_kept(reason)
    if reason != SHED:
        work.list_not_kept(ask.job_id, ask.chat, reason)


def _bury(work: UnitOfWork, job: JobRow, chat: ChatRow | None, dead: Dead) -> None:
    job.reason = dead.reason
    work.keep_outcome(job, dead_text(dead))
    _end(work, job, chat, State.DEAD)


def _end(work: UnitOfWork, job: JobRow, chat: ChatRow | None, state: State) -> None:
    if chat is not None:
        _leave(work, chat, job)
        work.save_chat(chat)
    work.stop_waiting(job)
    job.state, job.since = state, work.now
    # Not needed for an ended job. Its row is kept for days, and small numbers take less space.
    job.chat, job.place, job.units_before, job.due, job.lease_end = None, 0, 0, 0, 0
    job.unsettled = job.handed_back = 0
    job.key, job.variant = None, ""
    work.save_job(job)


def _leave(work: UnitOfWork, chat: ChatRow, job: JobRow) -> None:
    """Remove the job from its line, or end its call."""
    if chat.sending == job.job_id:
        chat.sending = None
        if job.since >= work.bot.rebuilt:  # otherwise, nothing is known of how long the call took
            chat.rest_until = work.now + policy.rest_after(work.now - job.since)
    elif job.state.in_line:
        chat.line(job.priority).length -= 1


def _put_back(work: UnitOfWork, ask: Ask, job: JobRow, chat: ChatRow | None, delay_us: int, charged: bool) -> None:
    """Return the job to its old place, the head of its line, where it waits for ``delay_us``."""
    if job.since:
        job.unsettled -= 1
        if not charged:
            _refund(work, job, chat)
            _respace(work, ask, job, chat, None)
    if chat is not None:
        _leave(work, chat, job)
        chat.line(job.priority).length += 1
        work.save_chat(chat)
    work.stop_waiting(job)
    job.state, job.since, job.due = State.WAITING, 0, work.now + delay_us
    work.save_job(job)


def _count_later(
    work: UnitOfWork, ask: Ask, job: JobRow, chat: ChatRow | None, chat_delay: int, bot_delay: int
) -> None:
    """Move the units of a call that arrived late to its arrival. The caller saves the chat."""
    if chat is not None and chat_delay:
        own = windows_of(work, chat.chat)
        chat.log = windows.moved(chat.log, own, job.units, job.since, chat_delay)
        _respace(work, ask, job, chat, chat_delay)
    pace = work.policy.rates(work.bot.bot).pace(job.paid)
    if bot_delay and pace is not None and pace.window is not None:
        budget = work.bot.budget(job.paid)
        budget.log = windows.moved(budget.log, (pace.window,), job.bot_units, job.since, bot_delay)
        work.save_bot()


def _refund(work: UnitOfWork, job: JobRow, chat: ChatRow | None) -> None:
    if chat is not None:
        own = windows_of(work, chat.chat)
        chat.log = windows.refund(chat.log, own, job.units, job.since)
    pace = work.policy.rates(work.bot.bot).pace(job.paid)
    if pace is not None:
        windows.bot_refund(work.bot.budget(job.paid), pace, job.bot_units, job.since)
    bot = work.bot
    if job.since >= bot.minute:
        bot.this_minute = max(0, bot.this_minute - job.bot_units)
    else:
        bot.last_minute = max(0, bot.last_minute - job.bot_units)
    work.save_bot()
