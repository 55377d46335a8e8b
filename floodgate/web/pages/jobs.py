"""Jobs: find one by its id, and list those that ended without a dead letter."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from floodgate.broker.admission.contract import NotKept, Record
from floodgate.web.pages.choice import chosen_bot
from floodgate.web.paging import PER_PAGE, ListPage, number_of, read_ahead
from floodgate.web.rendering import page
from floodgate.web.service_threads import attempt
from floodgate.web.services import Services, services_of
from floodgate.web.viewer import Viewer, viewer_of

MOST_ID: Final = 200


async def show(request: Request) -> Response:
    """Show a job's record in the ledger, and a page of the jobs that ended without a dead letter."""
    services, params = services_of(request), request.query_params
    job = params.get("id", "").strip()[:MOST_ID]
    bot = chosen_bot(request)
    number = number_of(request)
    records, not_kept = await asyncio.gather(
        attempt(_records(services, job, bot)),
        attempt(_not_kept(services, bot or services.settings.default_bot, number)),
    )
    return page(
        request,
        "jobs.html",
        job=job,
        bot=bot,
        bots=services.bots,
        records=records,
        result=_result_for(viewer_of(request)),
        not_kept=not_kept,
        listed_bot=bot or services.settings.default_bot,
    )


async def _records(services: Services, job: str, bot: str | None) -> dict[str, Record]:
    found: dict[str, Record] = {}
    for name in [bot] if bot else services.bots if job else []:
        if job and (record := await services.ask_store(services.store.lookup, name, job)) is not None:
            found[name] = record
    return found


async def _not_kept(services: Services, bot: str, number: int) -> ListPage[NotKept]:
    rows = await services.ask_store(services.store.not_kept, bot, PER_PAGE + 1, (number - 1) * PER_PAGE)
    return read_ahead(rows, number)


def _result_for(viewer: Viewer) -> Any:
    def result(record: Record) -> str:
        """Return Telegram's result; without texts, only the number of the message."""
        if viewer.sees_texts:
            return json.dumps(record.result, indent=2, ensure_ascii=False)
        named = record.result.get("message_id") if isinstance(record.result, dict) else None
        return f"message {named}" if named is not None else ""

    return result
