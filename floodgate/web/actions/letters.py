"""Replaying and dropping dead letters that meet the same criteria as on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from floodgate.broker.errors import InvalidParamsError
from floodgate.broker.messages.dead_letters import DeadLetter
from floodgate.letters import reading
from floodgate.letters.criteria import Criteria
from floodgate.letters.reading import Looked
from floodgate.letters.replay import Fate, Replay
from floodgate.web.actions.operation import ActionOutcome, ActionPlan, ActionRequest, Operation
from floodgate.web.letter_index import KnownLetters, counts_of
from floodgate.web.letter_query import criteria_of, described, ending_at, fields_of

MOST_AT_ONCE: Final = 10_000
_BOUND: Final = f"One action touches at most {MOST_AT_ONCE} dead letters."
_UNDONE: Final = {
    Fate.SENT_BEFORE: "removed, because their jobs had been sent",
    Fate.DUPLICATE: "removed, because another letter of the job was replayed",
    Fate.NO_JOB: "kept, because they are not jobs and can only be dropped",
    Fate.UNKNOWN_BOT: "kept, because their bot is not configured here",
}


@dataclass(frozen=True, slots=True)
class _Chosen:
    """The letters that an action concerns, and criteria that no later letter meets."""

    criteria: Criteria
    known: KnownLetters
    letters: Sequence[DeadLetter]
    timeless: int
    """Letters that match and do not say when they died, so that they may be later ones."""

    @property
    def exactly(self) -> Criteria:
        """Criteria that only these letters meet, whatever else is in the queues now."""
        return replace(self.criteria, ids=frozenset(letter.message_id for letter in self.letters))


async def _chosen(request: ActionRequest) -> _Chosen:
    now = datetime.now(UTC)
    known = await request.services.letters.look()
    if known.problem is not None:
        raise InvalidParamsError(f"The dead letters cannot be counted now. {known.problem}")
    asked = criteria_of(request.params, request.viewer, now)
    criteria = ending_at(asked, known.read_at or now)
    letters = await request.services.compute(known.matching, criteria)
    timeless = 0 if criteria.ids else sum(1 for each in known.letters if each.died_at is None and asked.match(each))
    if len(letters) > MOST_AT_ONCE:
        raise InvalidParamsError(
            f"{len(letters)} dead letters match, and one action touches at most {MOST_AT_ONCE}: narrow the filters."
        )
    return _Chosen(criteria, known, letters, timeless)


async def _plan(request: ActionRequest, effect: str) -> ActionPlan:
    chosen = await _chosen(request)
    by_reason = ", ".join(f"{reason}: {count}" for reason, count in counts_of(chosen.letters).most_common())
    notes = [effect, *([f"By reason: {by_reason}."] if by_reason else [])]
    if not chosen.known.is_complete:
        notes.append(
            f"The letters are still being counted: {len(chosen.known.letters)} of {chosen.known.waiting} so far."
        )
    if chosen.timeless:
        notes.append(f"{chosen.timeless} letters that do not say when they died are left out: choose them one by one.")
    if chosen.known.left_out:
        notes.append(f"{chosen.known.left_out} letters beyond the oldest {len(chosen.known.letters)} are not touched.")
    return ActionPlan(
        described(chosen.criteria),
        len(chosen.letters),
        ("dead letter", "dead letters"),
        _BOUND,
        fields_of(chosen.criteria),
        notes,
        is_ready=chosen.known.is_complete,
    )


async def _plan_replay(request: ActionRequest) -> ActionPlan:
    return await _plan(
        request, "Their jobs are enqueued again, in their order. No job is lost, and none is sent twice."
    )


async def _replay(request: ActionRequest) -> ActionOutcome:
    services = request.services
    criteria = (await _chosen(request)).exactly

    def replay(depths: dict[str, int], looked: Looked) -> Replay:
        run = Replay(services.connections, services.store, services.settings)
        for queue, depth in depths.items():
            run.run(queue, depth, criteria, looked)
        return run

    fates = (await services.letters.act(replay)).fates
    said = [
        f"{fates[Fate.REPLAYED]} replayed",
        *(f"{fates[fate]} {words}" for fate, words in _UNDONE.items() if fates[fate]),
    ]
    return ActionOutcome(sum(count for fate, count in fates.items() if not fate.stays), "; ".join(said) + ".")


async def _plan_drop(request: ActionRequest) -> ActionPlan:
    return await _plan(request, "They are deleted permanently, and their jobs will never be sent.")


async def _drop(request: ActionRequest) -> ActionOutcome:
    services = request.services
    criteria = (await _chosen(request)).exactly

    def drop(depths: dict[str, int], looked: Looked) -> int:
        with reading.held(services.connections, depths, criteria, looked) as (counts, remove):
            remove()
        return counts.total()

    dropped = await services.letters.act(drop)
    return ActionOutcome(dropped, f"{dropped} deleted.")


REPLAY: Final = Operation("Replay", _plan_replay, _replay)
DROP: Final = Operation("Drop", _plan_drop, _drop)
