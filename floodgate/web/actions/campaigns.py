"""Starting, pausing, resuming and cancelling a campaign."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from floodgate.broker.errors import CampaignError
from floodgate.web.actions.operation import ActionOutcome, ActionPlan, ActionRequest, Operation
from floodgate.web.services import Services

if TYPE_CHECKING:
    from floodgate.producer.campaigns.sending.progress import CampaignProgress
    from floodgate.producer.campaigns.storage.records import Campaign

_RECIPIENTS: Final = ("recipient who has not got a message", "recipients who have not got their message")
_Change = Callable[[Services, str], "Campaign"]


def _operation(label: str, effect: str, change: _Change, done: str, *, reads_audience: bool = False) -> Operation:
    async def plan(request: ActionRequest) -> ActionPlan:
        progress = await _progress(request)
        name = progress.campaign.name
        notes = [f"{name} is {progress.campaign.state} and has {progress.total} recipients.", effect]
        what = f"campaign {name} of bot {progress.campaign.bot}"
        bound = "One action concerns one campaign."
        return ActionPlan(what, progress.left, _RECIPIENTS, bound, [("name", name)], notes)

    async def act(request: ActionRequest) -> ActionOutcome:
        services, left = request.services, (await _progress(request)).left
        ask = services.ask_audience if reads_audience else services.ask_campaigns
        changed = await ask(change, services, request.field("name"))
        return ActionOutcome(left, f"{changed.name} is {done}; it was to reach {left} more recipients.")

    return Operation(label, plan, act)


async def _progress(request: ActionRequest) -> CampaignProgress:
    if not (name := request.field("name")):
        raise CampaignError("No campaign is named.")
    return await request.services.ask_campaigns(request.services.campaigns.progress, name)


START: Final = _operation(
    "Start",
    "Every recipient's message is checked first; if one is wrong, the campaign does not start.",
    lambda services, name: services.campaigns.start(name),
    "running",
    reads_audience=True,
)
PAUSE: Final = _operation(
    "Pause",
    "Messages that wait in RabbitMQ are taken back within a second.",
    lambda services, name: services.campaigns.pause(name),
    "paused",
)
RESUME: Final = _operation(
    "Resume", "It goes on where it stopped.", lambda services, name: services.campaigns.resume(name), "running"
)
CANCEL: Final = _operation(
    "Cancel",
    "They will not get it. A cancelled campaign cannot be started again.",
    lambda services, name: services.campaigns.cancel(name),
    "cancelled",
)
