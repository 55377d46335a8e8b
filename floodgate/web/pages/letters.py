"""Dead letters: the list, by the same criteria as on the command line, and one letter."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import partial
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from floodgate.broker.errors import InvalidParamsError
from floodgate.broker.messages.dead_letters import REASONS, DeadLetter
from floodgate.letters.criteria import harmless
from floodgate.web.letter_index import KnownLetters, counts_of
from floodgate.web.letter_query import FIELDS, criteria_of, fields_of
from floodgate.web.paging import number_of, sliced
from floodgate.web.rendering import page
from floodgate.web.services import services_of
from floodgate.web.viewer import Viewer, viewer_of

MOST_SHOWN_TEXT: Final = 20_000


async def show_list(request: Request) -> Response:
    """List the dead letters that meet the criteria in the URL, the oldest first."""
    services, viewer, params = services_of(request), viewer_of(request), request.query_params
    try:
        criteria = criteria_of(params, viewer, datetime.now(UTC))
    except InvalidParamsError as error:
        raise HTTPException(400, str(error)) from None
    known = await services.letters.look()
    found = await services.compute(known.matching, criteria)
    return page(
        request,
        "letters.html",
        known=known,
        age=_age(known),
        found=sliced(found, number_of(request)),
        counts=counts_of(found),
        given={name: params.getlist(name) for name in FIELDS},
        fields=fields_of(criteria),
        bots=services.bots,
        reasons=sorted(REASONS),
        description=partial(description_for, viewer),
    )


async def show(request: Request) -> Response:
    """Show everything about one letter, without texts if the viewer may not see them."""
    known = await services_of(request).letters.look()
    letter_id = request.path_params["letter"]
    letter = next((each for each in known.letters if each.message_id == letter_id), None)
    if letter is None:
        reading = "" if known.is_complete else " The letters are still being read: reload this page in a moment."
        raise HTTPException(
            404, f"No dead letter has the id {letter_id[:64]!r}.{reading} {known.problem or ''}".strip()
        )
    viewer = viewer_of(request)
    return page(
        request,
        "letter.html",
        letter=letter,
        description=description_for(viewer, letter),
        text=_text(letter) if viewer.sees_texts else None,
        kind=_kind(letter),
        age=_age(known),
    )


def _text(letter: DeadLetter) -> str:
    if letter.job is not None:
        text = json.dumps(letter.job.params, indent=2, ensure_ascii=False)
    elif letter.update is not None:
        text = json.dumps(letter.update.body, indent=2, ensure_ascii=False)
    else:
        text = harmless(letter.body)
    return text[:MOST_SHOWN_TEXT]


def description_for(viewer: Viewer, letter: DeadLetter) -> str:
    """Return a letter's description. A handler's error may quote the update: without texts, it is its type only."""
    if viewer.sees_texts or letter.update is None:
        return letter.description
    return letter.description.partition(":")[0]


def _kind(letter: DeadLetter) -> str:
    """Return the type of an update, as in ``message``; empty if the letter is not an update's."""
    return next((name for name in letter.update.body if name != "update_id"), "") if letter.update else ""


def _age(known: KnownLetters) -> float:
    return 0.0 if known.read_at is None else (datetime.now(UTC) - known.read_at).total_seconds()
