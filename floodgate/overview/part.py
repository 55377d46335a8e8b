"""A part of the picture, read on a thread of its own, so that one that does not answer delays none of the others."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Generic, TypeVar

from floodgate.broker.errors import FloodgateError
from floodgate.overview.picture import Health

T = TypeVar("T")

# The time spent on reading a part, as a share of all: what takes 60 ms is read every 3 s.
SHARE: Final = 0.02
# However long reading took, it is read again after this, so that its return is noticed.
LONGEST_REST: Final = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class Reading(Generic[T]):
    """What was read of a part, or why it could not be."""

    value: T | None
    fault: FloodgateError | None = None

    def health(self, text: str) -> Health:
        """Return its health: the text, or the fault."""
        return Health(text) if self.fault is None else Health(str(self.fault), self.fault)


class PartReader(Generic[T]):
    """Reads a part at most once at a time, and no more often than :data:`SHARE` allows. It belongs to one thread.

    Args:
        name: what is read, as the beginning of a sentence.
        read: blocks; raises a FloodgateError if the part cannot be read.
    """

    def __init__(self, name: str, read: Callable[[], T], clock: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._read = read
        self._clock = clock
        self._latest: Future[T] | None = None
        self._next: Future[T] | None = None
        self._fails = False
        self._due = 0.0  # written by the reading thread before it resolves the future

    def begin(self, *, fresh: bool = False) -> None:
        """Begin to read it, if that is due (or at once, if it must be ``fresh``) and not under way."""
        if self._next is None and (fresh or self._clock() >= self._due):
            self._next = Future()
            threading.Thread(target=self._run, args=(self._next,), name=f"read {self._name}", daemon=True).start()

    def end(self, seconds: float | None) -> Reading[T]:
        """Return what was read last; if it is being read, wait up to ``seconds`` for it.

        With a bound, a part that failed the last time is not waited for again.
        """
        if self._next is not None:
            if not wait([self._next], 0 if self._fails and seconds is not None else seconds).done:
                self._fails = True
                return Reading(None, self._overdue())
            self._latest, self._next = self._next, None
        assert self._latest is not None, "begin is called first"
        try:
            value = self._latest.result()
        except FloodgateError as fault:
            self._fails = True
            return Reading(None, fault)
        self._fails = False
        return Reading(value)

    def _run(self, future: Future[T]) -> None:
        began = self._clock()
        try:
            value = self._read()
        except BaseException as error:  # noqa: BLE001 - raised again by `end`
            self._rest(began)
            future.set_exception(error)
        else:
            self._rest(began)
            future.set_result(value)

    def _rest(self, began: float) -> None:
        now = self._clock()
        self._due = now + min((now - began) / SHARE, LONGEST_REST.total_seconds())

    def _overdue(self) -> FloodgateError:
        """Return the latest fault, which says more, or else that it does not answer."""
        fault = None if self._latest is None else self._latest.exception()
        if isinstance(fault, FloodgateError):
            return fault
        return FloodgateError(f"{self._name} does not answer. Check that it runs and is not overloaded.")
