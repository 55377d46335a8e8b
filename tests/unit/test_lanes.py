"""Lanes: a chat's updates run one after another, those of different chats concurrently."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, cast

from floodgate.actors.updates.lanes import Lanes
from floodgate.broker.messages.update import read_update
from floodgate.broker.process.stopping import Stopping
from floodgate.broker.worker.queue_consumer import DeliveredMessage


class Delivery:
    """Replaces the broker's."""

    live = True

    def __init__(self, redelivered: bool) -> None:
        self.redelivered = redelivered
        self.put_downs = 0
        self.requeues = 0

    def requeue(self) -> None:
        self.requeues += 1

    def put_down(self) -> None:
        self.put_downs += 1


class Message:
    """Replaces a delivered update."""

    def __init__(self, number: int, chat: int, queue: str, redelivered: bool) -> None:
        self.number = number
        self.queue_name = queue
        message = {"message_id": number, "date": 0, "chat": {"id": chat, "type": "private"}, "text": "hi"}
        self.update = read_update("default", {"update_id": number, "message": message})
        self.delivery = Delivery(redelivered)
        self.settled = True


class Hall:
    """Lanes, and handlers that end when the test says so."""

    def __init__(self) -> None:
        self.stopping = Stopping()
        self.tasks: set[asyncio.Task[None]] = set()
        self.lanes = Lanes(self.stopping, self._track)
        self.begun: list[int] = []
        self.ended: list[int] = []
        self._doors: dict[int, asyncio.Future[None]] = {}

    def come(self, number: int, chat: int, queue: str = "updates.default.00", *, redelivered: bool = False) -> Message:
        message = Message(number, chat, queue, redelivered)
        self.lanes.dispatch(cast(DeliveredMessage, message), cast(Any, self._handle))
        return message

    async def let_go(self, *numbers: int) -> None:
        for number in numbers:
            self._doors[number].set_result(None)
        await turn()

    def _track(self, task: asyncio.Task[None]) -> None:
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _handle(self, message: Message) -> None:
        self.begun.append(message.number)
        self._doors[message.number] = asyncio.get_running_loop().create_future()
        await self._doors[message.number]
        self.ended.append(message.number)


async def turn() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def play(scene: Callable[[Hall], Awaitable[None]]) -> None:
    async def bounded() -> None:
        hall = Hall()
        async with asyncio.timeout(10):
            await scene(hall)
        for task in hall.tasks:
            task.cancel()

    asyncio.run(cast(Coroutine[Any, Any, None], bounded()))


def test_updates_of_one_chat_run_one_after_another() -> None:
    async def scene(hall: Hall) -> None:
        for number in (1, 2, 3):
            hall.come(number, chat=5)
        await turn()
        assert hall.begun == [1]
        await hall.let_go(1)
        assert hall.begun == [1, 2]
        await hall.let_go(2)
        await hall.let_go(3)
        assert hall.ended == [1, 2, 3]

    play(scene)


def test_chats_do_not_wait_for_each_other() -> None:
    async def scene(hall: Hall) -> None:
        for number in (1, 2, 3):
            hall.come(number, chat=number)
        await turn()
        assert hall.begun == [1, 2, 3]
        await hall.let_go(3)
        hall.come(4, chat=3)
        await turn()
        assert (hall.begun, hall.ended) == ([1, 2, 3, 4], [3])

    play(scene)


def test_the_same_chat_in_another_queue_has_another_lane() -> None:
    """Two bots may talk to one user."""

    async def scene(hall: Hall) -> None:
        hall.come(1, chat=5)
        hall.come(2, chat=5, queue="updates.other.00")
        await turn()
        assert hall.begun == [1, 2]

    play(scene)


def test_an_empty_lane_is_removed_and_can_be_opened_again() -> None:
    async def scene(hall: Hall) -> None:
        hall.come(1, chat=5)
        await turn()
        await hall.let_go(1)
        assert (hall.lanes._lanes, hall.tasks) == ({}, set())
        hall.come(2, chat=5)
        await turn()
        assert hall.begun == [1, 2]

    play(scene)


def test_when_the_worker_stops_unbegun_updates_are_put_down_and_running_ones_continue() -> None:
    async def scene(hall: Hall) -> None:
        messages = [hall.come(number, chat=5) for number in (1, 2, 3)]
        await turn()
        hall.stopping.set()
        late = hall.come(4, chat=6)
        await turn()
        assert late.delivery.put_downs == 1
        await hall.let_go(1)
        assert (hall.begun, hall.ended) == ([1], [1])
        assert [message.delivery.put_downs for message in messages] == [0, 1, 1]
        assert hall.tasks == set()

    play(scene)


def test_updates_behind_a_cancelled_handler_are_put_down() -> None:
    """Not the cancelled one itself: its delivery is open, and returns with its channel."""

    async def scene(hall: Hall) -> None:
        messages = [hall.come(number, chat=5) for number in (1, 2, 3)]
        await turn()
        [task] = hall.tasks
        task.cancel()
        await turn()
        assert [message.delivery.put_downs for message in messages] == [0, 1, 1]
        assert hall.lanes._lanes == {}

    play(scene)


def test_updates_lost_with_their_connection_are_not_begun() -> None:
    """RabbitMQ redelivers it, perhaps to another worker; otherwise two would handle it."""

    async def scene(hall: Hall) -> None:
        messages = [hall.come(number, chat=5) for number in (1, 2, 3)]
        await turn()
        for message in messages:
            message.delivery.live = False
        hall.come(22, chat=5)  # the second one again, on the next connection
        await hall.let_go(1)
        assert hall.begun == [1, 22]
        assert [message.delivery.put_downs for message in messages] == [0, 0, 0]
        await hall.let_go(22)
        assert hall.ended == [1, 22]

    play(scene)


def test_later_updates_of_a_chat_are_requeued_with_an_earlier_one() -> None:
    async def scene(hall: Hall) -> None:
        first, second, third = (hall.come(number, chat=5) for number in (1, 2, 3))
        other = hall.come(4, chat=6)
        await turn()
        first.settled = False
        await hall.let_go(1)
        assert (second.delivery.requeues, third.delivery.requeues, other.delivery.requeues) == (1, 1, 0)
        assert hall.begun == [1, 4]

    play(scene)


def test_a_redelivered_update_is_placed_before_later_ones() -> None:
    async def scene(hall: Hall) -> None:
        hall.come(1, chat=5)
        hall.come(4, chat=5)
        hall.come(2, chat=5, redelivered=True)
        hall.come(3, chat=5, redelivered=True)
        hall.come(1, chat=5)  # replayed: it counts as new and goes to the end
        await turn()
        for number in (1, 2, 3, 4):
            await hall.let_go(number)
        assert hall.begun == [1, 2, 3, 4, 1]

    play(scene)
