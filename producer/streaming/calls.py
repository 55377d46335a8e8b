"""Makes the jobs of a stream."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from floodgate.broker.messages.job import Job, Priority, stand_in
from floodgate.producer.core import Composer
from floodgate.producer.streaming.options import StreamRequest
from floodgate.producer.streaming.plan import CallKind, PlannedCall


class StreamJobs:
    """The jobs of one stream.

    The jobs of one message share a ``coalesce`` key, so that in one line a later state replaces an earlier one. A
    stream with a dedupe key derives the ids of its sends from it: a second stream with this key gets the messages of
    the first.
    """

    def __init__(self, composer: Composer, request: StreamRequest) -> None:
        self._composer = composer
        self._request = request
        self._bot = request.bot or composer.bot
        self._attempts: dict[int, int] = {}
        self._notices = 0

    def job(self, call: PlannedCall, priority: Priority, *, final: bool = False) -> Job:
        """The job of a call."""
        options = self._options(priority, coalesce=f"stream {self._request.key} {call.number}", final=final)
        keyed = call.kind is CallKind.SEND and self._request.dedupe_key is not None
        return self._make(call, options, self._id_of_send(call.number) if keyed else None)

    def notice(self, call: PlannedCall, delay: timedelta) -> Job:
        """The job that makes a call after a delay, unless it is cancelled."""
        options = self._options(self._request.priority, delay=delay)
        number, self._notices = self._notices, self._notices + 1
        return self._make(call, options, self._notice_id(number) if self._request.dedupe_key else None)

    def known_notice(self, number: int) -> Job:
        """A stand-in for a notice of an earlier stream with the same dedupe key."""
        return stand_in(self._bot, self._notice_id(number), self._request.chat)

    def stand_in(self) -> Job:
        """A stand-in for the stream itself, for those who watch jobs. It is never enqueued."""
        return stand_in(self._bot, f"stream-{self._request.key}", self._request.chat)

    def _notice_id(self, number: int) -> str:
        return f"stream-{self._request.key}-notice-{number}"

    def skip_notices(self, number: int) -> None:
        """Number the notices from here on."""
        self._notices = number

    def typing(self) -> Job:
        """The job that shows that the bot is typing."""
        params = {**self._request.for_typing(), "action": "typing"}
        return self._composer.unchecked("sendChatAction", params, self._options(Priority.BULK))

    def deletion(self, number: int, message_id: int) -> Job:
        """The job that deletes a message of an earlier stream. Its id is derived from that of the send."""
        params = self._request.for_deletion(message_id)
        method = "deleteBusinessMessages" if "business_connection_id" in params else "deleteMessage"
        job_id = f"{self._id_of_send(number)}-deletion"
        return self._composer.unchecked(method, params, self._options(Priority.BULK), job_id=job_id)

    def known_send(self, number: int) -> Job:
        """A stand-in for the send of a message, by the id that it would have now."""
        return stand_in(self._bot, self._id_of_send(number), self._request.chat)

    def send_anew(self, number: int) -> None:
        """Give the next send of a message a new id: the job with the last one has ended."""
        self._attempts[number] = self._attempts.get(number, 0) + 1

    def _make(self, call: PlannedCall, options: dict[str, Any], job_id: str | None) -> Job:
        fields = {"job_id": job_id} if job_id else {}
        match call.kind:
            case CallKind.SEND:
                params = self._request.for_send(call.number == 0)
                method = "sendMessage"
            case CallKind.EDIT:
                params = {**self._request.for_edit(), "message_id": call.message_id}
                method = "editMessageText"
            case CallKind.DRAFT:
                params = {**self._request.for_draft(), "draft_id": self._draft_id(call.number)}
                method = "sendMessageDraft"
        params |= call.part.params
        if call.last and (markup := self._request.params.get("reply_markup")) is not None:
            params["reply_markup"] = markup
        return self._composer.unchecked(method, params, options, **fields)

    def _options(self, priority: Priority, **options: Any) -> dict[str, Any]:
        return {"bot": self._bot, "campaign": self._request.campaign, "priority": priority, **options}

    def _id_of_send(self, number: int) -> str:
        return f"stream-{self._request.key}-{number}-{self._attempts.get(number, 0)}"

    def _draft_id(self, number: int) -> int:
        """Telegram animates the changes between drafts of one id, which must not be 0."""
        return int(self._request.key[:13], 16) % 2**31 + number + 1
