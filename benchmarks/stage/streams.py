"""What assistants say in the benchmark of streaming: the same text to every chat, each token due at its own moment.

A token is a numbered word, so the text on a screen tells how much of the answer it shows. Contenders in other languages
build the same tokens: see ``benchmarks/peers/streams_grammy.cjs``.
"""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Final

FIRST_PRIVATE: Final = 1_000_000
FIRST_GROUP: Final = -1_002_000_000_000  # and down
FIRST_READER: Final = 5_000_000
"""Chats of the people who are answered in between: each message goes to another one."""
SENTENCE: Final = 12
PARAGRAPH: Final = 60
STARTS_IN_SECONDS: Final = 1.0
_WORD: Final = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class StreamLoad:
    """So many answers at once, and a message to somebody else now and then.

    ``groups`` of the ``chats`` are groups; ``rate`` is in tokens a second.
    """

    chats: int
    groups: int
    tokens: int
    rate: float
    reply_seconds: float = 1.0

    @property
    def chat_ids(self) -> list[int]:
        """Private chats first."""
        private = [FIRST_PRIVATE + number for number in range(self.chats - self.groups)]
        return [*private, *(FIRST_GROUP - number for number in range(self.groups))]

    @property
    def seconds(self) -> float:
        """The time from the first token to the last."""
        return self.tokens / self.rate

    def token(self, number: int) -> str:
        """Return a token: its number, with the space before it and the full stop of a sentence.

        It has about five characters, so 2,000 of them fill two messages and a half.
        """
        space = "" if number == 0 else "\n\n" if number % PARAGRAPH == 0 else " "
        return f"{space}{number:0{len(str(self.tokens))}}{'.' if number % SENTENCE == SENTENCE - 1 else ''}"

    @property
    def text(self) -> str:
        """The whole answer."""
        return "".join(map(self.token, range(self.tokens)))

    def shown(self, text: str) -> int:
        """Return how many tokens of the answer have appeared once ``text`` is its newest part."""
        words = _WORD.findall(text)
        return int(words[-1]) + 1 if words else 0

    def is_answer(self, texts: Sequence[str]) -> bool:
        """Whether messages are the whole answer and nothing else, white space aside."""
        return "".join("".join(texts).split()) == "".join(self.text.split())

    def as_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> StreamLoad:
        return cls(**json.loads(text))


class Answer:
    """A model's answer: an asynchronous iterator over tokens that come at their own time, read or not."""

    def __init__(self, load: StreamLoad, started_at: float) -> None:
        self._load = load
        self._started_at = started_at
        self._next = 0

    async def __aiter__(self) -> AsyncIterator[str]:
        while self._next < self._load.tokens:
            wait = self._started_at + self._next / self._load.rate - time.time()
            if wait > 0:
                await asyncio.sleep(wait)
            self._next += 1
            yield self._load.token(self._next - 1)

    @property
    def has_more_now(self) -> bool:
        """Whether the next token is there already."""
        due = self._started_at + self._next / self._load.rate
        return self._next < self._load.tokens and due <= time.time()


Stream = Callable[[int, Answer], Awaitable[None]]
Reply = Callable[[int, str], Awaitable[None]]


async def perform(load: StreamLoad, stream: Stream, reply: Reply) -> None:
    """Stream to all chats, say when that is done, and reply to others all the time, until SIGTERM.

    ``stream`` returns when the contender has done all it will do for a chat.
    """
    ending = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ending.set)
    started_at = time.time() + STARTS_IN_SECONDS
    print(f"streaming from {started_at!r}", flush=True)
    streams = [asyncio.create_task(_streamed(stream, chat, Answer(load, started_at))) for chat in load.chat_ids]
    replies = asyncio.create_task(_reply_meanwhile(load, started_at, reply))
    finished = asyncio.create_task(_all_of(streams))
    stopped = asyncio.create_task(ending.wait())
    await asyncio.wait({finished, stopped}, return_when=asyncio.FIRST_COMPLETED)
    if finished.done():
        print("finished", flush=True)
        await ending.wait()
    for task in (finished, replies, *streams):
        task.cancel()
    await asyncio.wait({finished, replies, *streams})


async def _all_of(streams: Sequence[asyncio.Task[None]]) -> bool:
    await asyncio.wait(streams)
    return True


async def _streamed(stream: Stream, chat: int, answer: Answer) -> None:
    try:
        await stream(chat, answer)
    except Exception as error:  # noqa: BLE001 - a contender that loses an answer loses this one only
        print(f"lost the answer to {chat}: {error!r}", file=sys.stderr, flush=True)


async def _reply_meanwhile(load: StreamLoad, started_at: float, reply: Reply) -> None:
    async with asyncio.TaskGroup() as replies:
        number = 0
        while True:
            await asyncio.sleep(max(0.0, started_at + number * load.reply_seconds - time.time()))
            replies.create_task(_replied(reply, FIRST_READER + number, f"reply {number} {time.time()!r}"))
            number += 1


async def _replied(reply: Reply, chat: int, text: str) -> None:
    try:
        await reply(chat, text)
    except Exception as error:  # noqa: BLE001 - the judge sees that it is missing
        print(f"lost {text}: {error!r}", file=sys.stderr, flush=True)
