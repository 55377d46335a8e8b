"""What a stream has to show, and what its chat shows already. Pure.

In a chat that takes drafts, a draft shows the text while it grows, and a message replaces it once the text is complete.
Elsewhere the first words are a message, which is edited. A text longer than a message goes on in the next one as soon
as no later word changes the first (``TextPart.complete``). An edit of a message that will soon be full ends where the
message may end (``GrowingText.prospect``), so that the next call can go on in the next message.

An edit needs the id of its message, so it is planned only once Telegram has answered the send.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from floodgate.producer.streaming.text import GrowingText, TextPart


class CallKind(Enum):
    """What a call of a stream does."""

    SEND = auto()
    EDIT = auto()
    DRAFT = auto()


@dataclass(frozen=True, slots=True)
class PlannedCall:
    """A call that shows a part of the text."""

    kind: CallKind
    number: int
    """The ordinal of the message, from 0."""
    part: TextPart
    message_id: int | None = None
    last: bool = False
    """Whether it is the final call of the final message, which gets the buttons."""


class StreamPlan:
    """The plan of one stream.

    Args:
        drafts: whether to show drafts.
        buttons: whether the final message gets buttons, which only the final call shows.
    """

    def __init__(self, text: GrowingText, *, drafts: bool, buttons: bool = False) -> None:
        self.text = text
        self.drafts = drafts
        self._buttons = buttons
        self.number = 0
        """The ordinal of the message that is being written."""
        self.message_id: int | None = None
        self.shown: TextPart | None = None
        """What the chat shows of that message; None if nothing."""
        self.messages: dict[int, dict[str, Any]] = {}
        """Telegram's latest result for each message, by ordinal."""
        self.begun = False
        """Whether the chat has shown anything of the text."""

    def next_call(self) -> PlannedCall | None:
        """The call that shows the newest text; None if the chat shows it."""
        parts = self.text.parts
        while self.number < len(parts):
            part = parts[self.number]
            if part.complete and self.message_id is not None and _same(part, self.shown):
                self._go_on()
                continue
            if not part.text.strip() or (_same(part, self.shown) and not (self.drafts and part.complete)):
                return None
            return self._call(part if self.drafts or part.complete else self.text.prospect or part)
        return None

    def done(self, call: PlannedCall, result: Any) -> None:
        """Record that Telegram has carried out a call."""
        self.begun = True
        if isinstance(result, dict):
            self.messages[call.number] = result
        if call.number != self.number:
            return
        if call.kind is CallKind.SEND:
            if self.drafts:
                self._go_on()
                return
            self.message_id = result.get("message_id") if isinstance(result, dict) else None
            if self.message_id is None:
                return
        self.shown = call.part
        if not self.drafts:
            self.text.note_shown(call.part)

    def renew(self) -> None:
        """Plan the draft again, even if the text has not changed."""
        if self.drafts:
            self.shown = None

    def adopt(self, message_id: int) -> None:
        """Go on in a message that exists already, whatever it shows."""
        self.drafts, self.message_id, self.shown = False, message_id, None

    def lose_message(self) -> None:
        """Go on in a new message: somebody has deleted the present one."""
        self.message_id = self.shown = None

    def use_edits(self) -> None:
        """Show no more drafts: Telegram refuses them."""
        self.drafts, self.shown = False, None

    def final_calls(self, note: str = "") -> list[PlannedCall]:
        """The calls that complete the text, in order. A note is added to its end."""
        parts = list(self.text.finish())
        if note:
            parts = _noted(parts, note)
        calls: list[PlannedCall] = []
        for number in range(self.number, len(parts)):
            part, last = parts[number], number == len(parts) - 1
            if number > self.number:
                message_id, shown = None, None
            else:
                message_id, shown = self.message_id, self.shown
            if not part.text.strip():
                continue
            if message_id is None:
                calls.append(PlannedCall(CallKind.SEND, number, part, last=last))
            elif not _same(part, shown) or (last and self._buttons):
                calls.append(PlannedCall(CallKind.EDIT, number, part, message_id, last))
        return calls

    def interrupted(self, note: str) -> PlannedCall | None:
        """The call that leaves the text as it is, with a note, if nothing follows; None if the chat shows nothing."""
        parts = self.text.parts
        if self.number >= len(parts) or not parts[self.number].text.strip():
            return None
        part = with_note(parts[self.number], note)
        if self.drafts:
            return PlannedCall(CallKind.SEND, self.number, part)
        if self.message_id is None:
            return None
        return PlannedCall(CallKind.EDIT, self.number, part, self.message_id)

    def _call(self, part: TextPart) -> PlannedCall:
        if self.drafts:
            return PlannedCall(CallKind.SEND if part.complete else CallKind.DRAFT, self.number, part)
        kind = CallKind.SEND if self.message_id is None else CallKind.EDIT
        return PlannedCall(kind, self.number, part, self.message_id)

    def _go_on(self) -> None:
        self.number += 1
        self.message_id = self.shown = None


def with_note(part: TextPart, note: str) -> TextPart:
    """Add plain text to a part."""
    return dataclasses.replace(part, text=part.text + note)


def _noted(parts: list[TextPart], note: str) -> list[TextPart]:
    if not parts or not parts[-1].text.strip():
        return [*parts[:-1], TextPart(note.strip(), [], complete=True)]
    return [*parts[:-1], with_note(parts[-1], note)]


def _same(part: TextPart, shown: TextPart | None) -> bool:
    return shown is not None and (part.text, part.entities) == (shown.text, shown.entities)
