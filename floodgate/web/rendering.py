"""Renders templates. Whatever Telegram or a caller wrote is escaped: autoescape is on for every template."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse

from floodgate.letters.criteria import harmless
from floodgate.letters.paging import ago
from floodgate.overview.words import at_its_pace, why_paused
from floodgate.web.viewer import Action, viewer_of

# In the order of the navigation: path, title.
SECTIONS: Final = (
    ("/", "Overview"),
    ("/bots", "Bots"),
    ("/jobs", "Jobs"),
    ("/dead-letters", "Dead letters"),
    ("/unreachable", "Unreachable chats"),
    ("/campaigns", "Campaigns"),
    ("/updates", "Updates"),
    ("/audit", "Audit"),
)


def page(request: Request, template: str, status_code: int = 200, **facts: Any) -> HTMLResponse:
    """Render a whole page for the viewer of a request."""
    return HTMLResponse(environment().get_template(template).render(_context(request) | facts), status_code)


def fragment(template: str, **facts: Any) -> str:
    """Render a part of a page that is the same for every viewer."""
    return environment().get_template(template).render(facts)


@cache
def environment() -> Environment:
    """Return the environment of all templates."""
    made = Environment(
        loader=PackageLoader("floodgate.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "ago": ago,
        "duration": duration,
        "number": number,
        "partitions": partitions,
        "safe_text": safe_text,
        "time": time_of,
        "at_its_pace": at_its_pace,
        "why_paused": why_paused,
    }
    made.globals |= {"Action": Action, "infinity": math.inf, "sections": SECTIONS}
    return made


def _context(request: Request) -> dict[str, Any]:
    return {
        "viewer": viewer_of(request),
        "csrf_token": getattr(request.state, "csrf_token", ""),
        "can_log_out": getattr(request.state, "can_log_out", False),
        "path": request.url.path,
        "here": f"{request.url.path}?{request.url.query}" if request.url.query else request.url.path,
        "on_page": partial(_on_page, request),
    }


def _on_page(request: Request, number: int) -> str:
    """Return the URL of the same page with another page of its list."""
    changed = request.url.include_query_params(page=number)
    return f"{changed.path}?{changed.query}"


def duration(span: timedelta | float | None) -> str:
    """Format a duration in its two largest units, as in ``2 h 5 min``; a dash if it is unknown."""
    if span is None:
        return "–"
    seconds = span.total_seconds() if isinstance(span, timedelta) else span
    if seconds < 10:
        return f"{max(0.0, seconds):.1f} s"
    left, parts = round(seconds), []
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)):
        if left >= length:
            parts.append(f"{left // length} {unit}")
            left %= length
    return " ".join(parts[:2])


def number(value: float) -> str:
    """Format a number with thin spaces between its thousands, and with one decimal if it is not whole."""
    return (f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}").replace(",", "\N{NARROW NO-BREAK SPACE}")


def partitions(names: Iterable[str]) -> str:
    """Shorten the names of partitions, as in ``send.news.bulk.00–31``; a dash if there are none."""
    families: dict[str, list[int]] = {}
    others = []
    for name in names:
        family, _, number_ = name.rpartition(".")
        if family and number_.isascii() and number_.isdecimal():
            families.setdefault(family, []).append(int(number_))
        else:
            others.append(name)
    shown = [f"{family}.{_ranges(sorted(numbers))}" for family, numbers in sorted(families.items())]
    return ", ".join(shown + sorted(others)) or "–"


def _ranges(numbers: list[int]) -> str:
    runs: list[list[int]] = []
    for each in numbers:
        if runs and each == runs[-1][-1] + 1:
            runs[-1].append(each)
        else:
            runs.append([each])
    return "+".join(f"{run[0]:02}" if len(run) == 1 else f"{run[0]:02}–{run[-1]:02}" for run in runs)


def safe_text(text: object) -> str:
    """Escape unprintable characters, such as those that reverse the direction of text, line by line."""
    lines = str(text).split("\n")
    return "\n".join(harmless(line.encode("utf-8", "backslashreplace")) for line in lines)


def time_of(moment: datetime | int | None) -> str:
    """Format a time, or Unix milliseconds, in UTC; a dash if there is none."""
    if moment is None:
        return "–"
    if isinstance(moment, int):
        moment = datetime.fromtimestamp(moment / 1000, UTC)
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
