"""Confirms an action, carries it out and records it.

Bounds: a request waits :data:`PAGE_SECONDS` for its action, which goes on after that, at most :data:`MOST_AT_ONCE` of
them at a time. Access control bounds the forms.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Final

from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from floodgate.broker.errors import FloodgateError, RabbitMQError, StateError
from floodgate.web.actions import campaigns, chats, jobs, letters, pauses
from floodgate.web.actions.operation import ActionPlan, ActionRequest, Operation
from floodgate.web.audit import AuditEntry, AuditState
from floodgate.web.own_path import own_path
from floodgate.web.picture import picture_of
from floodgate.web.rendering import page
from floodgate.web.services import services_of
from floodgate.web.viewer import DESTROYING, Action, viewer_of

logger = logging.getLogger("floodgate.web")

MOST_AT_ONCE: Final = 8
PAGE_SECONDS: Final = 3.0

OPERATIONS: Final[Mapping[Action, Operation]] = {
    Action.PAUSE: pauses.PAUSE,
    Action.RESUME: pauses.RESUME,
    Action.CANCEL_JOB: jobs.CANCEL,
    Action.REPLAY_LETTERS: letters.REPLAY,
    Action.DROP_LETTERS: letters.DROP,
    Action.CLEAR_CHAT: chats.CLEAR,
    Action.START_CAMPAIGN: campaigns.START,
    Action.PAUSE_CAMPAIGN: campaigns.PAUSE,
    Action.RESUME_CAMPAIGN: campaigns.RESUME,
    Action.CANCEL_CAMPAIGN: campaigns.CANCEL,
}


async def confirm(request: Request) -> Response:
    """Say what an action will do, and how many it will touch. Changes nothing."""
    action = _allowed(request)
    plan = await _planned(action, ActionRequest(services_of(request), viewer_of(request), request.query_params))
    return _confirmation(request, action, plan, _back(request.query_params))


async def act(request: Request) -> Response:
    """Take an action, unless it would touch more than the viewer has confirmed. Leads to its entry in the audit log."""
    action, params = _allowed(request), await _form(request)
    asked = ActionRequest(services_of(request), viewer_of(request), params)
    plan = await _planned(action, asked)
    if not plan.is_ready or plan.touches > _confirmed(params):
        return _confirmation(request, action, plan, _back(params), 409)
    if len(asked.services.tasks) >= MOST_AT_ONCE:
        raise HTTPException(503, f"{MOST_AT_ONCE} actions are under way already. Try again when one has ended.")
    entry = await asked.services.audit.begin(asked.viewer.name, action, plan.what, plan.touches)
    task = asyncio.create_task(_carry_out(asked, action, entry), name=f"action {entry.id}")
    asked.services.tasks.add(task)
    task.add_done_callback(asked.services.tasks.discard)
    task.add_done_callback(lambda _: picture_of(request).expire())
    await asyncio.wait({task}, timeout=PAGE_SECONDS)
    return RedirectResponse(f"/audit/{entry.id}?{QueryParams(back=_back(params))}", 303)


async def _carry_out(asked: ActionRequest, action: Action, entry: AuditEntry) -> None:
    audit = asked.services.audit
    try:
        outcome = await OPERATIONS[action].act(asked)
    except FloodgateError as error:
        await audit.end(entry, AuditState.FAILED, None, str(error))
    except Exception:
        await audit.end(entry, AuditState.FAILED, None, "Floodgate has a fault here; the process's log has it.")
        logger.exception("the action %s failed", action)
    else:
        await audit.end(entry, AuditState.DONE, outcome.touched, outcome.said)


async def _planned(action: Action, asked: ActionRequest) -> ActionPlan:
    try:
        return await OPERATIONS[action].plan(asked)
    except (StateError, RabbitMQError) as error:
        raise HTTPException(503, str(error)) from None
    except FloodgateError as error:
        raise HTTPException(400, str(error)) from None


def _confirmation(request: Request, action: Action, plan: ActionPlan, back: str, status_code: int = 200) -> Response:
    return page(
        request,
        "confirm.html",
        status_code,
        action=action,
        label=OPERATIONS[action].label,
        destroys=action in DESTROYING,
        plan=plan,
        back=back,
        counted_again=status_code != 200,
    )


def _allowed(request: Request) -> Action:
    try:
        action = Action(request.path_params["action"])
    except ValueError:
        raise HTTPException(404, "There is no such action.") from None
    if not viewer_of(request).may(action):
        raise HTTPException(403, "Your role does not allow this action.")
    return action


async def _form(request: Request) -> QueryParams:
    """Return the fields of a form, which access control has bounded."""
    form = await request.form()
    return QueryParams([(name, value) for name, value in form.multi_items() if isinstance(value, str)])


def _confirmed(params: QueryParams) -> int:
    given = params.get("touches", "")
    return int(given) if given.isdecimal() and len(given) < 10 else -1


def _back(params: QueryParams) -> str:
    """Return the page that the viewer came from, if it is one of ours."""
    return own_path(params.get("back", "/"))
