"""Runs messages of async actors on the event loop: receive → admit → act → settle → ack, one coroutine a message.

Overview. The runner replaces ``dramatiq.Worker``: it consumes queues and processes their messages with the broker's
middleware signals, without threads. ``send`` and ``handle_update`` run here; plain actors run under Dramatiq's own
command line.

Signals fire as Dramatiq documents them: ``before_worker_boot`` and ``after_worker_boot``, for each message
``before_process_message``, then ``after_process_message`` or ``after_skip_message``, ``before_ack`` or ``before_nack``
and their ``after_`` counterparts, ``before_worker_shutdown`` and ``after_worker_shutdown``. Thread signals do not fire.
How a middleware's hook is called depends on its kind:

    AwaitedMiddleware          awaited
    CurrentMessage, AgeLimit   called on the loop: they do not block
    AsyncIO, TimeLimit,        not called: they manage threads
      ShutdownNotifications,
      PrefetchPerThread
    Retries, Callbacks,        not called for jobs and updates, whose retries and follow-ups are decided in actors/
      Pipelines, limits
    any other                  called on a thread of the loop's executor, since it may block

Settling. A message is acknowledged when its effect is safe elsewhere (``DeliveredMessage.settled``), dead-lettered when
it has failed permanently, and otherwise returned to its queue after a pause.

Stopping. ``stop`` hands idle queues back at once, lets running actors finish within the time-out, then cancels them;
unsettled messages are requeued, in order, when their channel closes.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final, cast

import dramatiq
from dramatiq.errors import ActorNotFound, RateLimitExceeded, Retry
from dramatiq.middleware import (
    AgeLimit,
    AsyncIO,
    CurrentMessage,
    Middleware,
    MiddlewareError,
    ShutdownNotifications,
    SkipMessage,
    TimeLimit,
)

from floodgate.broker.amqp.consumer import Delivery
from floodgate.broker.errors import MalformedJobError, PublishError, RabbitMQError
from floodgate.broker.messages.publication import Publication
from floodgate.broker.worker.dramatiq_broker import FOR_PLAIN_ACTORS, FloodgateBroker
from floodgate.broker.worker.middleware.awaited import AwaitedMiddleware
from floodgate.broker.worker.middleware.prefetch import PrefetchPerThread
from floodgate.broker.worker.queue_consumer import (
    GIVE_BACK_PAUSE_SECONDS,
    DeliveredMessage,
    letter_of_failed,
    letter_of_malformed,
    prefetch_of,
    read_message,
)

logger = logging.getLogger("floodgate.worker")

CANCEL_SECONDS: Final = 2.0  # for coroutines to end once they are cancelled
_ON_LOOP: Final = (CurrentMessage, AgeLimit)
_FOR_THREADS: Final = (AsyncIO, TimeLimit, ShutdownNotifications, PrefetchPerThread)

RunMessage = Callable[[DeliveredMessage], Awaitable[None]]


class Runner:
    """Runs async actors. One per process. Belongs to the event loop; ``stop`` is safe to call twice and unstarted.

    Args:
        queues: names of the queues on the server.
        prefetch: returns a queue's maximum number of unsettled messages; with more than one, they run concurrently.
        dispatch: starts processing a message; None runs each as a task at once.
    """

    def __init__(
        self,
        broker: FloodgateBroker,
        queues: Iterable[str],
        *,
        prefetch: Callable[[str], int] = prefetch_of,
        dispatch: Callable[[DeliveredMessage, RunMessage], None] | None = None,
    ) -> None:
        self.broker = broker
        self._queues = sorted(queues)
        self._prefetch = prefetch
        self._dispatch = dispatch or self._run_at_once
        self._hooks = Hooks(broker)
        self._tasks: set[asyncio.Task[None]] = set()
        self._actors: dict[str, Callable[..., Awaitable[Any]]] = {}
        self._booted = False

    async def start(self) -> None:
        """Fire the boot signals and consume the queues.

        Raises:
            SettingsError: a process cannot consume that many queues.
        """
        await self._hooks.boot("before_worker_boot", self)
        self._booted = True
        for queue in self._queues:
            self.broker.subscriptions[queue] = self.broker.connections.subscribe(
                queue,
                self.broker.worker_id,
                self._on_delivery,
                partial(self.broker.topology_of, [queue]),
                prefetch=self._prefetch(queue),
            )
        await self._hooks.boot("after_worker_boot", self)

    async def stop(self, timeout_seconds: float) -> None:
        """Accept nothing new, wait for running actors, cancel them at the time-out, fire the shutdown signals."""
        if not self._booted:
            return
        self._booted = False
        self.broker.stopping.set()
        for queue in self._queues:
            self.broker.subscriptions[queue].drain()
        await self._hooks.boot("before_worker_shutdown", self)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_seconds)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CANCEL_SECONDS)
        await self._hooks.boot("after_worker_shutdown", self)

    def track(self, task: asyncio.Task[None]) -> None:
        """Make ``stop`` wait for a task that processes messages."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _on_delivery(self, delivery: Delivery) -> None:
        try:
            message = read_message(delivery, delivery.queue)
        except MalformedJobError as error:
            letter = letter_of_malformed(delivery, str(error))
            self.track(asyncio.get_running_loop().create_task(self._bury(delivery, letter)))
        else:
            self._dispatch(message, self.process)

    def _run_at_once(self, message: DeliveredMessage, run: RunMessage) -> None:
        self.track(asyncio.get_running_loop().create_task(cast("Any", run(message))))

    async def process(self, message: DeliveredMessage) -> None:
        """Process one message, from its signals to its ack. Raises only ``CancelledError``."""
        try:
            actor = self._actor(message.actor_name)
        except ActorNotFound as error:
            logger.error("message %s is for an actor that this worker cannot run: %s", message.message_id, error)
            message.fail()
            message.stuff_exception(error)
        else:
            await self._act(message, actor)
        await self._settle(message)
        message.clear_exception()

    async def _act(self, message: DeliveredMessage, actor: Callable[..., Awaitable[Any]]) -> None:
        try:
            await self._hooks.before(message)
            result = None if message.failed else await actor(*message.args, **message.kwargs)
            await self._hooks.after(message, result, None)
        except SkipMessage as skip:
            if message.failed:
                message.stuff_exception(skip)
            logger.warning("message %s was skipped", message.message_id)
            await self._hooks.skipped(message)
        except Exception as error:  # noqa: BLE001  # an actor may raise anything; middleware decides what follows
            await self._failed(message, error)

    async def _failed(self, message: DeliveredMessage, error: Exception) -> None:
        message.stuff_exception(error)
        if isinstance(error, RateLimitExceeded):
            logger.debug("message %s is deferred: %s", message.message_id, error)
        elif isinstance(error, self._expected_by(message)):
            logger.info("message %s failed with an expected exception: %r", message.message_id, error)
        elif not isinstance(error, Retry):
            logger.error("message %s failed with an unhandled exception", message.message_id, exc_info=error)
        await self._hooks.after(message, None, error)
        if not message.failed and message.job is None and message.update is None and not message.settled:
            message.give_back()

    def _expected_by(self, message: DeliveredMessage) -> Any:
        """Return the exceptions that the message or its actor ``throws``, for ``isinstance``."""
        return message.options.get("throws") or self.broker.get_actor(message.actor_name).options.get("throws") or ()

    async def _settle(self, message: DeliveredMessage) -> None:
        if message.failed:
            self._hooks.emit("before_nack", message)
            await self._bury(message.delivery, letter_of_failed(message))
            self._hooks.emit("after_nack", message)
            return
        self._hooks.emit("before_ack", message)
        if message.settled:
            message.delivery.ack()
        else:
            await self._give_back(message.delivery)
        self._hooks.emit("after_ack", message)

    async def _give_back(self, delivery: Delivery) -> None:
        """Return a message to its queue after a pause.

        While stopping, it is left to the closing channel, which requeues its whole window in order: requeued alone, it
        would be delivered again at once and end up behind later messages.
        """
        if await self.broker.stopping.sleep(GIVE_BACK_PAUSE_SECONDS):
            delivery.put_down()
        else:
            delivery.requeue()

    async def _bury(self, delivery: Delivery, letter: Publication) -> None:
        try:
            await self.broker.connections.publisher.apublish(letter)
        except (PublishError, RabbitMQError) as error:
            logger.warning("cannot write a dead letter, the message returns to %s: %s", delivery.queue, error)
            await self._give_back(delivery)
        else:
            delivery.ack()

    def _actor(self, name: str) -> Callable[..., Awaitable[Any]]:
        """Return the coroutine function of an actor.

        Raises:
            ActorNotFound: no actor has this name, or it is not async.
        """
        if (found := self._actors.get(name)) is None:
            actor: dramatiq.Actor[..., Any] = self.broker.get_actor(name)
            found = inspect.unwrap(actor.fn)
            if not inspect.iscoroutinefunction(found):
                raise ActorNotFound(f"{name} is not async: run it under the dramatiq command")  # type: ignore[no-untyped-call]
            self._actors[name] = found
        return found


class Hooks:
    """Calls the hooks of the broker's middleware, each in the way that suits its kind. Overrides are looked up once."""

    def __init__(self, broker: FloodgateBroker) -> None:
        self._broker = broker
        self._overriding: dict[str, Sequence[Middleware]] = {}

    async def boot(self, hook: str, runner: Runner) -> None:
        """Fire a signal of the whole worker."""
        for each in self._of(hook):
            if isinstance(each, AwaitedMiddleware):
                if (awaited := getattr(each, f"a{hook}", None)) is not None:
                    await awaited(self._broker)
            else:
                await self._call(each, hook, runner)

    async def before(self, message: DeliveredMessage) -> None:
        """Fire ``before_process_message``."""
        for each in self._of("before_process_message"):
            if not isinstance(each, AwaitedMiddleware):
                await self._call(each, "before_process_message", message)
            elif each.concerns(message):
                await each.abefore_process_message(self._broker, message)

    async def after(self, message: DeliveredMessage, result: Any, exception: BaseException | None) -> None:
        """Fire ``after_process_message``."""
        for each in self._of("after_process_message"):
            await self._call(each, "after_process_message", message, result=result, exception=exception)

    async def skipped(self, message: DeliveredMessage) -> None:
        """Fire ``after_skip_message``."""
        for each in self._of("after_skip_message"):
            await self._call(each, "after_skip_message", message)

    def emit(self, hook: str, message: DeliveredMessage) -> None:
        """Fire a signal of an ack or a nack, on the loop: middleware must not block in it."""
        for each in self._of(hook):
            try:
                getattr(each, hook)(self._broker, message)
            except Exception:
                logger.critical("unexpected failure in %s of %r", hook, each, exc_info=True)

    async def _call(self, middleware: Middleware, hook: str, *args: Any, **kwargs: Any) -> None:
        """Call a hook. As in Dramatiq, exceptions not meant for the worker are logged."""
        if isinstance(middleware, FOR_PLAIN_ACTORS) and _is_ours(args[0]):
            return
        call = partial(getattr(middleware, hook), self._broker, *args, **kwargs)
        try:
            if isinstance(middleware, _ON_LOOP):
                call()
            else:
                await asyncio.to_thread(call)
        except MiddlewareError:
            if hook.startswith("before_"):
                raise
            _note_failure(middleware, hook, args[0])
        except RabbitMQError:
            _note_failure(middleware, hook, args[0])
        except Exception:
            logger.critical("unexpected failure in %s of %r", hook, middleware, exc_info=True)

    def _of(self, hook: str) -> Sequence[Middleware]:
        """Return the middleware that overrides a hook, in firing order: reversed for ``after_``, as in Dramatiq."""
        if (found := self._overriding.get(hook)) is None:
            plain = getattr(Middleware, hook)
            found = [
                each
                for each in self._broker.middleware
                if getattr(type(each), hook) is not plain and not isinstance(each, _FOR_THREADS)
            ]
            self._overriding[hook] = found = found[::-1] if hook.startswith("after_") else found
        return found


def _is_ours(subject: object) -> bool:
    return isinstance(subject, DeliveredMessage) and (subject.job is not None or subject.update is not None)


def _note_failure(middleware: Middleware, hook: str, subject: object) -> None:
    """Log a failed hook. Its message returns to its queue if RabbitMQ did not accept a follow-up message of it."""
    logger.critical("unexpected failure in %s of %r", hook, middleware, exc_info=True)
    if isinstance(subject, DeliveredMessage):
        subject.give_back()
