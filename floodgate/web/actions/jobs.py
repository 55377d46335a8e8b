"""Cancelling a job."""

from __future__ import annotations

from floodgate.broker.admission.contract import CANCELLED, Record
from floodgate.broker.admission.policy import ask_for
from floodgate.broker.errors import InvalidParamsError
from floodgate.broker.messages.job import stand_in
from floodgate.web.actions.operation import ActionOutcome, ActionPlan, ActionRequest, Operation


async def _plan(request: ActionRequest) -> ActionPlan:
    bot, job = _named(request)
    record: Record | None = await request.services.ask_store(request.services.store.lookup, bot, job)
    standing = "No worker has seen it yet; if it is queued, it will be dropped." if record is None else ""
    notes = [standing or f"It is {record.standing if record else ''}. Only a waiting job can be cancelled."]
    fields = [("bot", bot), ("job", job)]
    return ActionPlan(f"job {job} of bot {bot}", 1, ("job", "jobs"), "One action cancels one job.", fields, notes)


async def _cancel(request: ActionRequest) -> ActionOutcome:
    bot, job = _named(request)
    ask = ask_for(stand_in(bot, job), request.services.settings)
    record = await request.services.ask_store(request.services.store.cancel, ask)
    if record.reason != CANCELLED:
        return ActionOutcome(0, f"Job {job} cannot be cancelled: it is {record.standing}.")
    return ActionOutcome(1, f"Job {job} is cancelled.")


def _named(request: ActionRequest) -> tuple[str, str]:
    bot, job = request.bot, request.field("job")
    if not job:
        raise InvalidParamsError("No job is named: write its id.")
    return bot, job


CANCEL = Operation("Cancel", _plan, _cancel)
