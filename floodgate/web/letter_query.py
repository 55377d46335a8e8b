"""Dead letters' criteria in a URL: the same as the options of ``floodgate dead-letters``."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Final

from starlette.datastructures import QueryParams

from floodgate.broker.errors import InvalidParamsError
from floodgate.letters.criteria import Criteria, chat_of, moment
from floodgate.web.viewer import Viewer

FIELDS: Final = ("bot", "reason", "chat", "campaign", "since", "until", "text", "id")
MOST_IDS: Final = 1000


def criteria_of(params: QueryParams, viewer: Viewer, now: datetime) -> Criteria:
    """Return the criteria that a URL or a form states. Empty fields mean any.

    Raises:
        InvalidParamsError: a field is wrong, or the viewer may not search texts, whose answers would reveal them.
    """
    ids = frozenset(filter(None, params.getlist("id")))
    if len(ids) > MOST_IDS:
        raise InvalidParamsError(f"{len(ids)} ids are given: choose at most {MOST_IDS}, or use the filters.")
    text = params.get("text") or None
    if text is not None and not viewer.sees_texts:
        raise InvalidParamsError("Your role does not show texts, so it cannot search them. Empty the field 'Text'.")
    return Criteria(
        ids=ids,
        bot=params.get("bot") or None,
        reasons=frozenset(filter(None, params.getlist("reason"))),
        chat=chat_of((params.get("chat") or "").strip() or None),
        campaign=params.get("campaign") or None,
        since=moment((params.get("since") or "").strip() or None, now),
        until=moment((params.get("until") or "").strip() or None, now),
        text=text,
    )


def fields_of(criteria: Criteria) -> list[tuple[str, str]]:
    """Return the fields of a form that states the criteria, with fixed times."""
    single = {"bot": criteria.bot, "chat": criteria.chat, "campaign": criteria.campaign, "text": criteria.text}
    times = {"since": criteria.since, "until": criteria.until}
    return [
        *(("id", each) for each in sorted(criteria.ids)),
        *(("reason", each) for each in sorted(criteria.reasons)),
        *((name, value) for name, value in single.items() if value is not None),
        *((name, value.isoformat()) for name, value in times.items() if value is not None),
    ]


def described(criteria: Criteria) -> str:
    """Describe criteria in words, without the text that is searched for: the audit log holds no texts."""
    return ", ".join(_words(criteria)) or "all"


def _words(criteria: Criteria) -> list[str]:
    words = [f"id {each}" for each in sorted(criteria.ids)[:10]]
    words += [f"{len(criteria.ids) - 10} more ids"] if len(criteria.ids) > 10 else []
    words += [f"reason {' or '.join(sorted(criteria.reasons))}"] if criteria.reasons else []
    given = {"bot": criteria.bot, "chat": criteria.chat, "campaign": criteria.campaign}
    words += [f"{name} {value}" for name, value in given.items() if value is not None]
    words += ["with a text"] if criteria.text is not None else []
    words += [f"since {criteria.since.isoformat(timespec='seconds')}"] if criteria.since else []
    return words + ([f"until {criteria.until.isoformat(timespec='seconds')}"] if criteria.until else [])


def ending_at(criteria: Criteria, latest: datetime) -> Criteria:
    """Leave out letters that are later than a time, unless they are chosen by their ids."""
    if criteria.ids:
        return criteria
    return replace(criteria, until=min(criteria.until or latest, latest))
