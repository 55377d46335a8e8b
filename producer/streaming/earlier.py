"""What an earlier stream with the same dedupe key has left: its messages, and the notice of its interruption."""

from __future__ import annotations

import asyncio
import logging

from floodgate.broker.admission.contract import CANCELLED, Standing
from floodgate.broker.errors import FloodgateError
from floodgate.producer.streaming.calls import StreamJobs
from floodgate.producer.streaming.options import StreamRequest
from floodgate.producer.streaming.pipeline import LOOK_SECONDS, SEND_SECONDS, StreamPipeline

logger = logging.getLogger("floodgate.streams")


class EarlierStream:
    """The earlier stream, if there was one. A stream without a dedupe key has none."""

    def __init__(self, request: StreamRequest, jobs: StreamJobs, pipeline: StreamPipeline) -> None:
        self._request = request
        self._jobs = jobs
        self._pipeline = pipeline
        self._asked_for: set[int] = set()
        self._has_messages = False

    async def withdraw_notices(self) -> None:
        """Withdraw its notices, of which at most two are outstanding.

        Raises:
            StateError: the state store cannot answer.
        """
        if self._request.dedupe_key is None:
            return
        number = 0
        while await self._pipeline.look(self._jobs.known_notice(number)) is not None:
            number += 1
        await self._pipeline.withdraw(self._jobs.known_notice(number), self._jobs.known_notice(number + 1))
        self._jobs.skip_notices(number + 2)

    async def message(self, number: int) -> int | None:
        """Return the id of a message that it has sent; None if there is none, or if this was asked before.

        A send that still waits is withdrawn.

        Raises:
            StateError: the state store cannot answer.
        """
        if self._request.dedupe_key is None or number in self._asked_for:
            return None
        self._asked_for.add(number)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + SEND_SECONDS
        while True:
            record = await self._pipeline.look(job := self._jobs.known_send(number))
            if record is None or record.standing is Standing.WAITING:
                (record,) = await self._pipeline.withdraw(job)
            if record.standing is Standing.SENDING and loop.time() < deadline:
                await asyncio.sleep(LOOK_SECONDS)
                continue
            if record.standing is Standing.SENT and isinstance(record.result, dict):
                message_id = int(record.result["message_id"])
                if await self._pipeline.look(self._jobs.deletion(number, message_id)) is None:
                    self._has_messages = True
                    return message_id
            self._jobs.send_anew(number)
            if record.reason == CANCELLED and await self._pipeline.look(self._jobs.known_send(number)) is None:
                return None

    async def delete_messages_from(self, number: int) -> None:
        """Delete the messages that it needed for its text, and the present stream does not."""
        try:
            while self._has_messages and (message_id := await self.message(number)) is not None:
                await self._pipeline.enqueue(self._jobs.deletion(number, message_id))
                number += 1
        except FloodgateError as error:
            logger.warning("stream %s: messages of an earlier stream may be left: %s", self._request.key, error)
