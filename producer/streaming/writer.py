"""Writes one stream's text into its chat: one task, which makes one call at a time.

Overview. :meth:`StreamWriter.append` only adds to the text and wakes the task. The task asks the plan for the call that
shows the newest text, waits for a turn, takes the text as it is then, enqueues the call as a job and waits until the
job has ended. So a stream never has more than one call on the way, and its pace is that of the pipeline.

Invariants:
- an edit is enqueued only after its message was sent, because it needs the message's id;
- the final text comes last: before it is enqueued, a job that is still on the way is withdrawn from the state
  store, or waited for if its call is under way. If neither can be done in time, the final text joins the same line
  behind it (same priority and ``coalesce`` key), where it cannot overtake it;
- a job that is withdrawn costs no call.

Failure handling. A call that fails is skipped; errors of RabbitMQ are retried with a growing pause while the text
grows. Only the final text raises. A draft that Telegram refuses turns the stream to edits. For a producer that dies,
a notice waits in RabbitMQ (:mod:`floodgate.producer.streaming.notice`).
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from floodgate.broker.admission.contract import CANCELLED, SHED, Record, Standing
from floodgate.broker.errors import ClosedError, ConfirmTimeoutError, FloodgateError, InvalidParamsError, StateError
from floodgate.broker.messages.job import Job, Priority
from floodgate.producer.streaming.calls import StreamJobs
from floodgate.producer.streaming.earlier import EarlierStream
from floodgate.producer.streaming.notice import InterruptionNotice
from floodgate.producer.streaming.options import StreamRequest
from floodgate.producer.streaming.pipeline import LOOK_SECONDS, SEND_SECONDS, EndOfJob, StreamPipeline
from floodgate.producer.streaming.plan import CallKind, PlannedCall, StreamPlan
from floodgate.producer.streaming.turns import Turn, TurnKind, Turns
from floodgate.producer.waiting import ended

logger = logging.getLogger("floodgate.streams")

# The text of one stream, in characters: about sixteen messages.
MOST_TEXT: Final = 65_536
# A chat shows an action for 5 s.
TYPING_SECONDS: Final = 4.5
# A draft lives for 30 s.
RENEW_DRAFT_SECONDS: Final = 20.0
# How long the final text waits for a call under way before it joins the line behind it (for a send: SEND_SECONDS). A
# draft is withdrawn then.
EDIT_SECONDS: Final = 1.0
DRAFT_SECONDS: Final = 0.5
# After this many refused edits in a row, or one refused send, only the final text is still tried.
MOST_REFUSALS: Final = 3
LONGEST_PAUSE_SECONDS: Final = 30.0
# After drafts that were shed: a cool-down takes up to 3 s.
SHED_PAUSE_SECONDS: Final = 4.0
# How often `append` lets other tasks of the loop run.
YIELD_SECONDS: Final = 0.05

_LOST: Final = ("message to edit not found", "message can't be edited")


@dataclass(frozen=True, slots=True)
class ChatPace:
    """The shortest time between two calls to a chat, by the limits in the settings."""

    edit_seconds: float
    draft_seconds: float


@dataclass(slots=True)
class PendingCall:
    """A call on its way."""

    call: PlannedCall
    job: Job
    end: EndOfJob
    turn: Turn | None

    def close(self) -> None:
        """Wait for it no longer."""
        self.end.close()
        if self.turn is not None:
            self.turn.drop()


class StreamWriter:
    """Writes one stream. Belongs to the event loop that runs when it is started."""

    def __init__(
        self,
        request: StreamRequest,
        plan: StreamPlan,
        jobs: StreamJobs,
        pipeline: StreamPipeline,
        turns: Turns,
        pace: ChatPace,
    ) -> None:
        self._request = request
        self._plan = plan
        self._jobs = jobs
        self._pipeline = pipeline
        self._turns = turns
        self._pace = pace
        self._loop = turns.loop
        self._length = 0
        self._changed: asyncio.Future[None] = self._loop.create_future()
        self._closing: asyncio.Future[None] = self._loop.create_future()
        self._note = ""
        self._yielded_at = self._loop.time()
        self._task: asyncio.Task[None] | None = None
        self._pending: PendingCall | None = None
        self._shown_at = 0.0
        self._not_before = 0.0
        self._typing_at = 0.0
        self._repeat: tuple[PlannedCall, Job] | None = None  # a call that RabbitMQ may have accepted
        self._refusals = 0
        self._outages = 0
        self._sheds = 0
        self._earlier = EarlierStream(request, jobs, pipeline)
        self._notice = InterruptionNotice(request, plan, jobs, pipeline)
        self._final: dict[int, Job] = {}

    @property
    def final_jobs(self) -> tuple[Job, ...]:
        """The jobs that complete the text."""
        return tuple(self._final.values())

    def start(self) -> None:
        """Begin to write."""
        self._task = self._loop.create_task(self._run(), name=f"floodgate-stream-{self._request.key}")

    async def append(self, piece: str) -> None:
        """Add to the text. Waits for nothing but, now and then, for other tasks of the loop.

        Raises:
            InvalidParamsError: the text is too long.
            ClosedError: the stream has ended.
        """
        if self._task is None or self._closing.done():
            raise ClosedError("The stream has ended: begin another one.")
        if not isinstance(piece, str):
            raise InvalidParamsError(f"append takes text, not {type(piece).__name__}.")
        if self._length + len(piece) > MOST_TEXT:
            raise InvalidParamsError(f"The text has more than {MOST_TEXT} characters: begin another stream.")
        self._length += len(piece)
        self._plan.text.append(piece)
        if not self._changed.done():
            self._changed.set_result(None)
        now = self._loop.time()
        if now - self._yielded_at > YIELD_SECONDS:
            self._yielded_at = now
            await asyncio.sleep(0)

    async def finish(self, note: str = "") -> None:
        """Complete the text, with a note at its end. Return once RabbitMQ has the final text on disk.

        Safe to call twice. If the caller is cancelled, the text is completed all the same.

        Raises:
            RabbitMQError: the final text was not accepted.
        """
        if self._task is None:
            return
        if not self._closing.done():
            self._note = note
            self._closing.set_result(None)
        await asyncio.shield(self._task)

    async def messages(self, seconds: float) -> list[dict[str, Any]]:
        """Return Telegram's messages, once they show the final text."""
        messages = dict(self._plan.messages)
        deadline = self._loop.time() + seconds
        for number, job in self._final.items():
            result = await self._pipeline.result(job, max(0.0, deadline - self._loop.time()))
            if isinstance(result, dict):
                messages[number] = result
        return [messages[number] for number in sorted(messages)]

    async def _run(self) -> None:
        listening = self._pipeline.watch(self._jobs.stand_in())  # or the listener would end between two calls
        self._turns.streams += 1
        try:
            await self._begin()
            await self._grow()
            await self._end()
        finally:
            if self._pending is not None:
                self._pending.close()
            self._turns.streams -= 1
            listening.close()

    async def _begin(self) -> None:
        with suppress(StateError):
            await self._earlier.withdraw_notices()
            await self._adopt(0)

    async def _adopt(self, number: int) -> int | None:
        """Go on in the message that an earlier stream has sent, and return its id. None if none is known."""
        with suppress(StateError):
            message_id = await self._earlier.message(number)
            if message_id is not None and number == self._plan.number:
                self._plan.adopt(message_id)
            return message_id
        return None

    # While the text grows.

    async def _grow(self) -> None:
        while not self._closing.done():
            await self._keep_alive()
            call = self._next_call()
            if call is None:
                await self._wait_for_text()
                continue
            turn = await self._turn(call)
            newest = self._next_call()
            if newest is None or not await self._is_ready(newest, self._kind_of_turn(call)):
                if turn is not None:
                    turn.drop()
                continue
            await self._show(newest, turn)

    def _next_call(self) -> PlannedCall | None:
        if self._repeat is not None:
            return self._repeat[0]
        return self._plan.next_call() if self._refusals < MOST_REFUSALS else None

    async def _wait_for_text(self) -> None:
        if self._changed.done():
            self._changed = self._loop.create_future()
        await self._wait(self._changed, self._until_due())

    async def _turn(self, call: PlannedCall) -> Turn | None:
        """Wait for the stream's turn. None if the call needs none, or the text is to end."""
        kind = self._kind_of_turn(call)
        if kind is TurnKind.REFRESH:
            asked = self._turns.for_refresh(self._shown_at, self._not_before)
        else:
            await self._pause(self._not_before)
            if kind is TurnKind.NOTHING:
                return None
            turns = self._turns.first_drafts if kind is TurnKind.FIRST_DRAFT else self._turns.prompt
            asked = turns.ask()
        if await self._until(asked):
            return asked.result()
        asked.cancel()
        return None

    async def _show(self, call: PlannedCall, turn: Turn | None) -> None:
        """Make a call and wait for its end; return without it if the text is to end."""
        prompt = self._kind_of_turn(call) in (TurnKind.FIRST_MESSAGE, TurnKind.FIRST_DRAFT)
        priority = self._request.priority if prompt else Priority.BULK
        job = self._repeat[1] if self._repeat is not None else self._jobs.job(call, priority)
        self._repeat, began = None, self._loop.time()
        try:
            pending = self._pending = PendingCall(call, job, self._pipeline.watch(job), turn)
            await self._pipeline.enqueue(job)
            if await self._until(pending.end.record):
                self._settle(pending, pending.end.record.result())
                self._not_before = max(self._not_before, self._earliest(call, began))
        except ConfirmTimeoutError as error:
            self._drop_pending(turn)
            self._repeat = call, job
            self._wait_for_rabbitmq(error)
        except FloodgateError as error:
            self._drop_pending(turn)
            self._wait_for_rabbitmq(error)

    def _kind_of_turn(self, call: PlannedCall) -> TurnKind:
        if call.kind is CallKind.DRAFT:
            return TurnKind.NOTHING if self._plan.begun else TurnKind.FIRST_DRAFT
        goes_on = self._plan.begun and not self._plan.drafts
        return TurnKind.REFRESH if call.kind is CallKind.EDIT or goes_on else TurnKind.FIRST_MESSAGE

    async def _is_ready(self, call: PlannedCall, kind: TurnKind) -> bool:
        """Whether to make a call now, after a turn of this kind. Not if an earlier stream has sent its message."""
        if self._closing.done() or self._kind_of_turn(call) is not kind:
            return False
        return call.kind is not CallKind.SEND or await self._adopt(call.number) is None

    def _earliest(self, call: PlannedCall, began: float) -> float:
        if call.kind is CallKind.DRAFT:
            return began + self._pace.draft_seconds
        return self._loop.time() + self._pace.edit_seconds

    def _drop_pending(self, turn: Turn | None = None) -> None:
        if self._pending is not None:
            self._pending.close()
            self._pending = None
        if turn is not None:
            turn.drop()

    def _settle(self, pending: PendingCall, record: Record) -> None:
        """Take note of how a call ended."""
        if pending.turn is not None:
            pending.turn.over()
        self._drop_pending()
        now, call = self._loop.time(), pending.call
        if record.standing is Standing.SENT:
            self._refusals = self._outages = self._sheds = 0
            self._shown_at = now
            self._plan.done(call, record.result)
            if call.kind is CallKind.SEND and not self._plan.drafts and self._plan.message_id is None:
                self._jobs.send_anew(call.number)  # Telegram's answer is no longer kept, and the message's id is lost
            return
        said = str((record.error or {}).get("description", "")).lower()
        if record.reason == SHED:
            self._sheds += 1
            self._not_before = now + min(self._pace.draft_seconds * 2**self._sheds, SHED_PAUSE_SECONDS)
        elif call.kind is CallKind.DRAFT and record.reason != CANCELLED:
            logger.info("stream %s: no drafts in this chat: %s", self._request.key, said or record.reason)
            self._turns.refuse_drafts(self._request.chat)
            self._plan.use_edits()
        elif call.kind is CallKind.EDIT and any(text in said for text in _LOST):
            self._plan.lose_message()
            self._jobs.send_anew(call.number)
        elif record.reason == CANCELLED:
            self._jobs.send_anew(call.number)
        else:
            self._refusals = MOST_REFUSALS if call.kind is CallKind.SEND else self._refusals + 1
            self._not_before = now + min(2.0**self._refusals, LONGEST_PAUSE_SECONDS)
            logger.warning("stream %s: a call failed: %s", self._request.key, said or record.reason)

    def _wait_for_rabbitmq(self, error: FloodgateError) -> None:
        """Pause after a job that was not accepted."""
        self._outages += 1
        self._not_before = self._loop.time() + min(2.0**self._outages, LONGEST_PAUSE_SECONDS)
        logger.info("stream %s: a state of the text is skipped: %s", self._request.key, error)
        if isinstance(error, ClosedError):
            self._refusals = MOST_REFUSALS

    # Signs of life: typing before the first words, drafts before they vanish, the notice.

    async def _keep_alive(self) -> None:
        now = self._loop.time()
        if not self._plan.begun and now >= self._typing_at:
            self._typing_at = now + TYPING_SECONDS
            with suppress(FloodgateError):
                await self._pipeline.enqueue(self._jobs.typing())
        if (due := self._draft_due_at()) is not None and now >= due:
            self._plan.renew()
        if (due := self._notice.due_at(self._shown_at)) is not None and now >= due:
            await self._notice.renew(now)

    def _draft_due_at(self) -> float | None:
        return self._shown_at + RENEW_DRAFT_SECONDS if self._plan.drafts and self._plan.shown is not None else None

    # Waiting.

    def _until_due(self) -> float | None:
        """How long until a sign of life is due; None if none is."""
        typing = None if self._plan.begun else self._typing_at
        due = [at for at in (typing, self._draft_due_at(), self._notice.due_at(self._shown_at)) if at is not None]
        return max(0.0, min(due) - self._loop.time()) if due else None

    async def _until(self, future: asyncio.Future[Any]) -> bool:
        """Wait for a future, and give signs of life meanwhile. False if the text is to end first."""
        while True:
            await self._wait(future, self._until_due())
            if future.done():
                return True
            if self._closing.done():
                return False
            await self._keep_alive()

    async def _pause(self, until: float) -> None:
        """Wait until a time, and give signs of life meanwhile; return early if the text is to end."""
        while not self._closing.done() and (left := until - self._loop.time()) > 0:
            due = self._until_due()
            await asyncio.wait((self._closing,), timeout=left if due is None else min(left, due))
            await self._keep_alive()

    async def _wait(self, future: asyncio.Future[Any], seconds: float | None) -> None:
        await asyncio.wait((future, self._closing), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)

    # At the end.

    async def _end(self) -> None:
        pending = self._pending
        if self._repeat is not None:
            call, job = self._repeat
            pending = self._pending = PendingCall(call, job, self._pipeline.watch(job), None)
        overtakes = pending is None or await self._is_over(pending)
        self._drop_pending()
        if not self._plan.drafts:
            await self._notice.withdraw()
        calls = self._plan.final_calls(self._note)
        turn = self._turns.prompt.take() if overtakes and self._request.priority is Priority.INTERACTIVE else None
        priority = self._request.priority if turn is not None else Priority.BULK
        if not overtakes and pending is not None:
            priority = pending.job.priority
        for call in calls:
            if call.kind is CallKind.SEND and (message_id := await self._adopt(call.number)) is not None:
                call = dataclasses.replace(call, kind=CallKind.EDIT, message_id=message_id)
            job = self._jobs.job(call, priority, final=True)
            await self._pipeline.enqueue(job)
            self._final[call.number] = job
        self._give_back_when_ended(turn)
        if self._plan.drafts:
            await self._notice.withdraw()
        if messages := len(self._plan.text.finish()):
            await self._earlier.delete_messages_from(messages)

    async def _is_over(self, pending: PendingCall) -> bool:
        """Make sure that nothing of a call can come after the final text. False if that cannot be known in time."""
        record = pending.end.record
        if pending.call.kind is CallKind.DRAFT:
            await asyncio.wait((record,), timeout=DRAFT_SECONDS)
            if not record.done():
                with suppress(StateError):
                    await self._pipeline.withdraw(pending.job)
            return True
        deadline = self._loop.time() + (SEND_SECONDS if pending.call.kind is CallKind.SEND else EDIT_SECONDS)
        while not record.done():
            with suppress(StateError):
                (found,) = await self._pipeline.withdraw(pending.job)
                if ended(found):
                    self._settle(pending, found)
                    return True
            if self._loop.time() >= deadline:
                return False
            await asyncio.wait((record,), timeout=LOOK_SECONDS)
        self._settle(pending, record.result())
        return True

    def _give_back_when_ended(self, turn: Turn | None) -> None:
        """Keep a turn until the final text is sent, or has taken too long to count."""
        if turn is None:
            return
        jobs = self.final_jobs
        if not jobs:
            turn.drop()
            return
        try:
            end = self._pipeline.watch(jobs[-1])
        except FloodgateError:
            turn.drop()
            return
        turn.at_end = end.close
        end.record.add_done_callback(lambda _: turn.over())
