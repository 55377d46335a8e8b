"""Why a chat waits: the rules of ``decisions``, asked without a job and without a change.

The first condition that ``decisions.admit`` would find unmet for the chat's next job is the cause. Expected times
follow from the chat's windows and the bot's pace, by the units ahead; so a line of a million jobs costs no more than
one of two. :class:`~floodgate.broker.admission.contract.ChatExplanation` says what they assume.

``admission.lua`` mirrors this module.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from floodgate.broker.admission import policy, windows
from floodgate.broker.admission.contract import (
    CallUnderWay,
    ChatExplanation,
    ChatLine,
    JobPlace,
    Pause,
    Scope,
    SlowedChat,
    UnreachableChat,
)
from floodgate.broker.admission.decisions import (
    bot_held_until,
    first_log,
    is_unreachable,
    outage_since,
    real_chat,
    record,
    rival_units_of,
    slowed_of,
    windows_of,
    windows_of_family,
)
from floodgate.broker.admission.rows import ChatRow, JobRow, SlowedRow, UnitOfWork
from floodgate.broker.admission.windows import Pace
from floodgate.broker.messages.job import Priority


def explain(work: UnitOfWork, chat_key: str, job_id: str | None) -> ChatExplanation:
    """As ``Admission.explain``."""
    key = real_chat(work, chat_key)
    known = work.chat(key)
    chat = known or ChatRow(key, first_log(work, windows_of(work, key)))
    heads = _heads(work, chat)
    job = None if job_id is None else work.job(job_id)
    slowed = [slow for family in policy.SLOWABLE if (slow := slowed_of(work, key, family)) is not None]
    why, scope = _cause(work, chat, heads, job, slowed) or (None, None)
    bot, now = work.bot, work.now
    held = max(chat.rest_until, chat.paused_until)
    return ChatExplanation(
        bot=bot.bot,
        chat=key,
        known=known is not None,
        why=why,
        scope=scope,
        pause=_pause(key, chat.paused_until - now, chat.pause_why),
        bot_pause=_pause(None, bot.paused_until - now, bot.pause_why),
        outage=_time(now - outage_since(work)) if outage_since(work) else None,
        unreachable=UnreachableChat(key, chat.refused_why, _time(now - chat.refused_at))
        if is_unreachable(work, chat)
        else None,
        call=_call(work, chat),
        chat_free=_time(max(held, windows.free_at(chat.log, windows_of(work, key), 1)) - now),
        bot_free=_time(max(bot_held_until(work), _bot_turn(work, None, 0, 1)) - now),
        lines=tuple(_line(work, chat, heads, head) for head in heads.values()),
        slowed=tuple(slowed_chat(work, slow) for slow in slowed),
        job=None if job_id is None else _place(work, chat, heads, job_id, job),
    )


def slowed_chat(work: UnitOfWork, slow: SlowedRow) -> SlowedChat:
    """What is shown of a learned pace."""
    now, own = work.now, windows_of_family(work, slow.chat, slow.family)
    interval = policy.spacing_us(own, slow.permille_at(now))
    return SlowedChat(slow.chat, slow.family, *map(_time, (interval, slow.next_at - now, slow.recovered_at - now)))


Heads = dict[Priority, JobRow]


def _heads(work: UnitOfWork, chat: ChatRow) -> Heads:
    found = ((each, work.head(chat.chat, each)) for each in Priority if chat.line(each).length)
    return {priority: head for priority, head in found if head is not None}


def _cause(
    work: UnitOfWork, chat: ChatRow, heads: Heads, job: JobRow | None, slowed: Sequence[SlowedRow]
) -> tuple[str, Scope] | None:
    """The first unmet condition: for the job if it waits in this chat, or else for the chat's first job."""
    now = work.now
    first = next(iter(heads.values()), None)
    waits = job is not None and job.state.in_line and _is_here(work, chat, job)
    subject = job if waits else first
    units = 1 if subject is None else subject.units
    if is_unreachable(work, chat):
        return "unreachable", Scope.CHAT
    if chat.paused_until > now:
        return "pause", Scope.CHAT
    if chat.sending is not None and chat.lease_end > now:
        return "in-flight", Scope.CHAT
    if subject is not None and waits and _is_behind(work, chat, heads, subject):
        return "line", Scope.CHAT
    if max(chat.rest_until, windows.free_at(chat.log, windows_of(work, chat.chat), units)) > now:
        return "rate", Scope.CHAT
    if subject is not None and subject.due > now and any(slow.next_at == subject.due for slow in slowed):
        return "rate", Scope.CHAT  # it waits for its family's next call
    if work.bot.paused_until > now:
        return "pause", Scope.BOT
    if bot_held_until(work) > now or outage_since(work):
        return "outage", Scope.BOT
    if _bot_turn(work, subject, 0, max(1, units)) > now:
        return "rate", Scope.BOT
    if first is not None and (first.due > now or first.due + policy.LATE_US < now):
        return "line", Scope.CHAT  # its head waits for a retry, or is missing
    return None


def _is_here(work: UnitOfWork, chat: ChatRow, job: JobRow) -> bool:
    return job.chat is not None and real_chat(work, job.chat) == chat.chat


def _is_behind(work: UnitOfWork, chat: ChatRow, heads: Heads, job: JobRow) -> bool:
    head = heads.get(job.priority)
    return (head is not None and head.job_id != job.job_id) or rival_units_of(work, chat, job) is not None


def _line(work: UnitOfWork, chat: ChatRow, heads: Heads, head: JobRow) -> ChatLine:
    line, now = chat.line(head.priority), work.now
    units = line.units - head.units_before
    return ChatLine(
        priority=head.priority,
        length=line.length,
        units=units,
        head=head.job_id,
        age=_time(now - head.place),
        due=_time(head.due - now),
        missing=_time(now - head.due) if head.due + policy.LATE_US < now else None,
        first=_expected(work, chat, heads, head, 0, head.units),
        last=_expected(work, chat, heads, head, max(0, units - 1), 1),
    )


def _place(work: UnitOfWork, chat: ChatRow, heads: Heads, job_id: str, job: JobRow | None) -> JobPlace:
    if job is None:
        return JobPlace(job_id, None)
    standing = record(work, job).standing
    head = heads.get(job.priority)
    if not job.state.in_line or head is None or not _is_here(work, chat, job):
        return JobPlace(job_id, standing)
    ahead = job.units_before - head.units_before
    return JobPlace(job_id, standing, job.priority, ahead, _expected(work, chat, heads, head, ahead, job.units))


def _expected(work: UnitOfWork, chat: ChatRow, heads: Heads, head: JobRow, ahead: int, units: int) -> timedelta | None:
    """Expected time until ``units`` are sent that have ``ahead`` units before them in the head's line."""
    if is_unreachable(work, chat) or outage_since(work):
        return None
    own = windows_of(work, chat.chat)
    start = max(work.now, chat.rest_until, chat.paused_until, work.bot.paused_until)
    # The time at which the head asks again may already allow for those that go before it.
    behind = ahead + _others(chat, heads, head, ahead, 0)
    after_head = windows.turn_at(chat.log, own, max(start, head.due), behind, units)
    ahead += _others(chat, heads, head, ahead, rival_units_of(work, chat, head) or 0)
    turn = windows.turn_at(chat.log, own, start, ahead, units)
    return _time(max(turn, after_head, _bot_turn(work, head, ahead, max(1, units))) - work.now)


def _others(chat: ChatRow, heads: Heads, head: JobRow, ahead: int, before_head: int) -> int:
    """The units of the chat's other line that go first, given those that go before the head."""
    other = heads.get(Priority.BULK if head.priority is Priority.INTERACTIVE else Priority.INTERACTIVE)
    if other is None:
        return 0
    turns = ahead // policy.INTERACTIVE_TURNS if other.priority is Priority.BULK else ahead * policy.INTERACTIVE_TURNS
    return min(chat.line(other.priority).units - other.units_before, before_head + turns)


def _bot_turn(work: UnitOfWork, head: JobRow | None, ahead: int, units: int) -> int:
    """The time at which the bot may send ``units``, after ``ahead`` units and those of jobs that wait before the
    head. 0 if nothing delays them."""
    bot, now = work.bot, work.now
    paid = head is not None and head.paid
    pace: Pace | None = work.policy.rates(bot.bot).pace(paid)
    if pace is None:
        return 0
    if head is not None:
        rank = head.rank or now + (policy.AGING_US if head.priority is Priority.BULK else 0)
        ahead += work.units_ahead(head, rank, now - policy.WAITER_GRACE_US)
    pace = pace.slowed(policy.learned_permille(bot.permille, bot.slowed_at, now))
    return windows.bot_turn_at(bot.budget(paid), pace, ahead, units, now)


def _call(work: UnitOfWork, chat: ChatRow) -> CallUnderWay | None:
    if chat.sending is None:
        return None
    return CallUnderWay(chat.sending, _time(work.now - chat.sending_since), _time(chat.lease_end - work.now))


def _pause(chat: str | None, left_us: int, why: str) -> Pause | None:
    return Pause(chat, _time(left_us), why) if left_us > 0 else None


def _time(us: int) -> timedelta:
    return timedelta(microseconds=max(0, us))
