"""The streams of one client."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

from floodgate.broker.admission.policy import Policy, policy_of
from floodgate.broker.admission.windows import Window
from floodgate.broker.settings.model import Settings
from floodgate.producer.core import Composer
from floodgate.producer.streaming.calls import StreamJobs
from floodgate.producer.streaming.options import StreamRequest, stream_request
from floodgate.producer.streaming.pipeline import StreamPipeline
from floodgate.producer.streaming.plan import StreamPlan
from floodgate.producer.streaming.text import GrowingText
from floodgate.producer.streaming.turns import Turns
from floodgate.producer.streaming.writer import ChatPace, StreamWriter

# Without limits, as on a private Bot API server.
_SHORTEST: Final = timedelta(milliseconds=100)


class Streams:
    """Begins the streams of one client; those of one bot and event loop share its rate."""

    def __init__(self, settings: Settings, composer: Composer, pipeline: StreamPipeline) -> None:
        self._composer = composer
        self._pipeline = pipeline
        self._policy: Policy = policy_of(settings)
        self._turns: dict[str, Turns] = {}

    def request(self, chat_id: int | str, given: Mapping[str, Any]) -> StreamRequest:
        """Check a stream's options.

        Raises:
            JobError: an option is wrong, or the bot is unknown.
        """
        request = stream_request(chat_id, given, self._composer.bot)
        # Raises now what would otherwise be raised in the middle of the text.
        GrowingText(request.formatting, limit=request.limit)
        StreamJobs(self._composer, request).typing()
        return request

    def begin(self, request: StreamRequest) -> StreamWriter:
        """Begin a stream on the event loop that runs."""
        bot = request.bot or self._composer.bot
        turns = self._turns_of(bot)
        plan = StreamPlan(
            GrowingText(request.formatting, limit=request.limit),
            drafts=request.drafts and turns.takes_drafts(request.chat),
            buttons="reply_markup" in request.params,
        )
        jobs = StreamJobs(self._composer, request)
        writer = StreamWriter(request, plan, jobs, self._pipeline, turns, self._pace(bot, request.chat))
        writer.start()
        return writer

    def _turns_of(self, bot: str) -> Turns:
        loop, turns = asyncio.get_running_loop(), self._turns.get(bot)
        if turns is None or turns.loop is not loop:
            turns = self._turns[bot] = Turns(loop)
        return turns

    def _pace(self, bot: str, chat: str) -> ChatPace:
        edits, drafts = self._policy.windows(bot, chat), self._policy.rates(bot).typing
        return ChatPace(_interval(edits), _interval(drafts))


def _interval(windows: tuple[Window, ...]) -> float:
    """The even spacing of calls within windows, in seconds."""
    spans = (timedelta(microseconds=window.span_us / window.cap) for window in windows)
    return max(_SHORTEST, *spans, _SHORTEST).total_seconds()
