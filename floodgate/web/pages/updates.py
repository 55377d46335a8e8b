"""Updates: how many wait, and which handlers fail."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from floodgate.broker.messages.dead_letters import DeadLetter
from floodgate.broker.messages.queue_names import family_of
from floodgate.overview.picture import BotOverview
from floodgate.web.pages.letters import description_for
from floodgate.web.pages.plots import plots_of_all, span_choice
from floodgate.web.picture import picture_of
from floodgate.web.rendering import page
from floodgate.web.services import services_of
from floodgate.web.viewer import Viewer, viewer_of

MOST_FAILURES: Final = 50


@dataclass(frozen=True, slots=True)
class HandlerFailure:
    """Updates whose handlers failed with the same error."""

    bot: str
    reason: str
    error: str
    updates: int
    latest: datetime | None


async def show(request: Request) -> Response:
    """Show the updates that wait, and those that failed."""
    services = services_of(request)
    known = await services.letters.look()
    failures = await services.compute(failures_of, viewer_of(request), known.letters)
    picture = await picture_of(request).look()
    return page(
        request,
        "updates.html",
        picture=picture,
        plotted=await plots_of_all(request, picture.bots, ("updates", "lag")),
        **span_choice(request),
        known=known,
        failures=failures,
        unread=_unread,
    )


def failures_of(viewer: Viewer, letters: Sequence[DeadLetter]) -> Sequence[HandlerFailure]:
    """Group the dead letters of updates by error as the viewer may see it, the most frequent first."""
    groups: defaultdict[tuple[str, str, str], list[DeadLetter]] = defaultdict(list)
    for letter in letters:
        if letter.update is not None:
            groups[letter.update.bot, letter.reason, description_for(viewer, letter)].append(letter)
    found = [
        HandlerFailure(*key, len(group), max((each.died_at for each in group if each.died_at), default=None))
        for key, group in groups.items()
    ]
    return sorted(found, key=lambda each: -each.updates)[:MOST_FAILURES]


def _unread(each: BotOverview) -> int:
    unread = each.messages.unread if each.messages else {}
    return sum(count for name, count in unread.items() if family_of(name) == "updates")
