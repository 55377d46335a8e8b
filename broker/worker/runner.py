"""Runs messages of async actors on the event loop: receive → admit → act → settle → ack, one coroutine a message.

Overview. The runner takes the place of ``dramatiq.Worker``: it consumes queues, processes their messages and emits the
broker's middleware signals, but uses no threads. ``send`` and ``handle_update`` run here; plain actors run under
Dramatiq's own command line.

Signals fire as Dramatiq documents them: ``before_worker_boot`` and ``after_worker_boot``; for each message
``before_process_message``, then ``after_process_message`` or ``after_skip_message``, then ``before_ack`` or
``before_nack`` and the matching ``after_`` signal; ``before_worker_shutdown`` and ``after_worker_shutdown``. Thread
signals never fire, because there are no threads. How a middleware's hook is called depends on its kind:

    AwaitedMiddleware          awaited
    CurrentMessage, AgeLimit,  called on the loop: they neither block nor compute
      RunsOnLoop
    AsyncIO, TimeLimit,        not called: they manage threads
      ShutdownNotifications,
      PrefetchPerThread
    Retries, Callbacks,        not called for jobs and updates, whose retries and follow-ups are decided in actors/
      Pipelines, limits
    any other                  called on a thread of the loop's executor, because it may block

Settling. A message is acknowledged once its effect is durable elsewhere (``DeliveredMessage.settled``), dead-lettered
if it failed for good, and otherwise returned to its queue after a pause.

Stopping. ``stop`` releases idle queues at once, lets running actors finish until the timeout, then cancels them.
Unsettled messages return to their queues, in order, when the channel closes.
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
from floodgate.broker.messages.dead_letters import reason_of
from floodgate.broker.messages.publication import Publication
from floodgate.broker.messages.queue_names import owner_of
from floodgate.broker.process.metrics import DEAD
from floodgate.broker.worker.dramatiq_broker import FOR_PLAIN_ACTORS, FloodgateBroker
from floodgate.broker.worker.middleware.awaited import AwaitedMiddleware, RunsOnLoop
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

CANCEL_SECONDS: Final = 2.0  # time for cancelled coroutines to end
_ON_LOOP: Final = (CurrentMessage, AgeLimit, RunsOnLoop)
_FOR_THREADS: Final = (AsyncIO, TimeLimit, ShutdownNotifications, PrefetchPerThread)

RunMessage = Callable[[DeliveredMessage], Awaitable[None]]


class Runner:
    """Consumes queues and runs their messages; one per process. Belongs to the event loop.

    Args:
        broker: the broker whose connections and middleware are used.
        queues: queue names on the server.
        prefetch: returns the prefetch count for a queue name. If it is above one, messages of that queue run
            concurrently.
        dispatch: starts processing a delivered message; None runs each message as a task at once.
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
        """Emit the boot signals and start consuming the queues.

        Raises:
            SettingsError: there are more queues than one process can consume.
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
        """Stop consuming, wait for running messages, cancel those left after the timeout, emit the shutdown signals.

        Safe to call twice, and before ``start``.
        """
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
        """Register a task that processes messages, so that ``stop`` waits for it."""
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
        """Process one message, from its first signal to its ack. Raises only ``CancelledError``."""
        try:
            actor = self._actor(message.actor_name)
        except ActorNotFound as error:
            logger.error("message %s names an actor that this worker cannot run: %s", message.message_id, error)
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
            logger.debug("message %s was deferred: %s", message.message_id, error)
        elif isinstance(error, self._expected_by(message)):
            logger.info("message %s failed with an expected exception: %r", message.message_id, error)
        elif not isinstance(error, Retry):
            logger.error("message %s failed with an unhandled exception", message.message_id, exc_info=error)
        await self._hooks.after(message, None, error)
        if not message.failed and message.job is None and message.update is None and not message.settled:
            message.give_back()

    def _expected_by(self, message: DeliveredMessage) -> Any:
        """The exception classes that the message or its actor ``throws``, for ``isinstance``."""
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

        While the worker stops, the message returns when the channel closes, together with the rest of its prefetch
        window: requeued on its own, it would be redelivered at once and end up behind later messages.
        """
        if await self.broker.stopping.sleep(GIVE_BACK_PAUSE_SECONDS):
            delivery.put_down()
        else:
            delivery.requeue()

    async def _bury(self, delivery: Delivery, letter: Publication) -> None:
        try:
            await self.broker.connections.publisher.apublish(letter)
        except (PublishError, RabbitMQError) as error:
            logger.warning("could not write a dead letter; its message goes back to %s: %s", delivery.queue, error)
            await self._give_back(delivery)
        else:
            self.broker.metrics.count(DEAD, owner_of(delivery.queue), reason_of(letter))
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
                raise ActorNotFound(f"{name} is not async: run it with the dramatiq command")  # type: ignore[no-untyped-call]
            self._actors[name] = found
        return found


class Hooks:
    """Calls the hooks of the broker's middleware. Which middleware overrides a hook is looked up once."""

    def __init__(self, broker: FloodgateBroker) -> None:
        self._broker = broker
        self._overriding: dict[str, Sequence[Middleware]] = {}

    async def boot(self, hook: str, runner: Runner) -> None:
        """Emit a worker signal: boot or shutdown."""
        for each in self._of(hook):
            if isinstance(each, AwaitedMiddleware):
                if (awaited := getattr(each, f"a{hook}", None)) is not None:
                    await awaited(self._broker)
            else:
                await self._call(each, hook, runner)

    async def before(self, message: DeliveredMessage) -> None:
        """Emit ``before_process_message``."""
        for each in self._of("before_process_message"):
            if not isinstance(each, AwaitedMiddleware):
                await self._call(each, "before_process_message", message)
            elif each.concerns(message):
                await each.abefore_process_message(self._broker, message)

    async def after(self, message: DeliveredMessage, result: Any, exception: BaseException | None) -> None:
        """Emit ``after_process_message``."""
        for each in self._of("after_process_message"):
            await self._call(each, "after_process_message", message, result=result, exception=exception)

    async def skipped(self, message: DeliveredMessage) -> None:
        """Emit ``after_skip_message``."""
        for each in self._of("after_skip_message"):
            await self._call(each, "after_skip_message", message)

    def emit(self, hook: str, message: DeliveredMessage) -> None:
        """Emit an ack or nack signal. Its hooks run on the event loop and must not block."""
        for each in self._of(hook):
            try:
                getattr(each, hook)(self._broker, message)
            except Exception:
                logger.critical("unexpected failure in %s of %r", hook, each, exc_info=True)

    async def _call(self, middleware: Middleware, hook: str, *args: Any, **kwargs: Any) -> None:
        """Call a hook as ``Broker.emit_before`` and ``emit_after`` do: exceptions are logged, unless the worker
        handles them."""
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
        """The middleware that overrides a hook, in call order: reversed for ``after_`` hooks, as in Dramatiq."""
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
    """Log a failed hook and return the message to its queue: its successor (the next message of a pipeline, or a
    callback) may not have been published."""
    logger.critical("unexpected failure in %s of %r", hook, middleware, exc_info=True)
    if isinstance(subject, DeliveredMessage):
        subject.give_back()
