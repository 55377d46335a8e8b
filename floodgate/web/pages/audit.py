"""The audit log, and what became of one action."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from floodgate.broker.errors import StateError
from floodgate.web.paging import number_of, sliced
from floodgate.web.rendering import page
from floodgate.web.service_threads import attempt
from floodgate.web.services import services_of


async def show_list(request: Request) -> Response:
    """List the latest actions."""
    audit = services_of(request).audit
    found = await attempt(audit.latest())
    entries = sliced(audit.own if found.value is None else found.value, number_of(request))
    return page(request, "audit.html", problem=found.problem, entries=entries)


async def show(request: Request) -> Response:
    """Show one action and how it ended."""
    try:
        entry = await services_of(request).audit.find(request.path_params["entry"])
    except StateError as error:
        raise HTTPException(503, str(error)) from None
    if entry is None:
        raise HTTPException(404, "The audit log has no such entry; older ones are in the process's log.")
    back = request.query_params.get("back", "/audit")
    is_ours = back.startswith("/") and not back.startswith(("//", "/\\"))
    return page(request, "audit_entry.html", entry=entry, back=back if is_ours else "/audit")
