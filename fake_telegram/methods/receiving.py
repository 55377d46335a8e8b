"""getUpdates and the webhook methods, which may wait or change how the bot's updates are delivered."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import urlsplit

from floodgate.fake_telegram.calls import Call
from floodgate.fake_telegram.errors import ApiError, bad_request
from floodgate.fake_telegram.updates import Inbox, Webhook
from floodgate.fake_telegram.webhooks import Webhooks
from floodgate.fake_telegram.world import World

_SECRET: Final = re.compile(r"[A-Za-z0-9_-]*")
_LONGEST_SECRET: Final = 256
_DEFAULT_CONNECTIONS: Final = 40
_MOST_CONNECTIONS: Final = 100
_MOST_UPDATES: Final = 100

WaitingHandler = Callable[[World, Webhooks, Call], Awaitable[Any]]


async def _get_updates(world: World, webhooks: Webhooks, call: Call) -> list[dict[str, Any]]:
    inbox = world.receiving.inbox(call.bot_id)
    _allow(inbox, call)
    limit = min(max(call.integer("limit", _MOST_UPDATES), 1), _MOST_UPDATES)
    updates = await inbox.poll(call.integer("offset"), limit, max(call.integer("timeout"), 0))
    return [update.as_json() for update in updates]


async def _set_webhook(world: World, webhooks: Webhooks, call: Call) -> bool:
    if not call.text("url"):
        return await _delete_webhook(world, webhooks, call)
    webhook = _webhook_of(call)
    inbox = world.receiving.inbox(call.bot_id)
    _allow(inbox, call)
    _drop_pending_if_asked(inbox, call)
    inbox.interrupt("terminated by setWebhook request")
    inbox.webhook = webhook
    await webhooks.switch(call.bot_id, inbox)
    return True


async def _delete_webhook(world: World, webhooks: Webhooks, call: Call) -> bool:
    inbox = world.receiving.inbox(call.bot_id)
    _drop_pending_if_asked(inbox, call)
    inbox.webhook = None
    await webhooks.switch(call.bot_id, inbox)
    return True


async def _get_webhook_info(world: World, webhooks: Webhooks, call: Call) -> dict[str, Any]:
    inbox = world.receiving.inbox(call.bot_id)
    inbox.drop_expired()
    info: dict[str, Any] = {
        "url": "",
        "has_custom_certificate": False,
        "pending_update_count": len(inbox.pending),
    }
    if inbox.webhook is not None:
        info |= _webhook_fields(inbox.webhook)
    if inbox.allowed:
        info["allowed_updates"] = sorted(inbox.allowed)
    return info


def _webhook_fields(webhook: Webhook) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "url": webhook.url,
        "has_custom_certificate": webhook.has_certificate,
        "max_connections": webhook.max_connections,
    }
    if webhook.last_error_date is not None:
        fields |= {
            "last_error_date": webhook.last_error_date,
            "last_error_message": webhook.last_error_message,
        }
    return fields


def _webhook_of(call: Call) -> Webhook:
    """Return the webhook that a call sets. Plain HTTP is accepted, as by a local Bot API server."""
    url, secret = call.text("url"), call.text("secret_token")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise bad_request("bad webhook: An HTTPS URL must be provided for webhook")
    if len(secret) > _LONGEST_SECRET:
        raise bad_request("secret token is too long")
    if not _SECRET.fullmatch(secret):
        raise bad_request("secret token contains unallowed characters")
    return Webhook(
        url=url,
        secret_token=secret,
        max_connections=min(max(call.integer("max_connections", _DEFAULT_CONNECTIONS), 1), _MOST_CONNECTIONS),
        has_certificate="certificate" in call.uploads,
    )


def _allow(inbox: Inbox, call: Call) -> None:
    """Store which types of updates are requested. Telegram ignores an invalid list."""
    if not call.has("allowed_updates"):
        return
    try:
        wanted = call.array("allowed_updates", "String")
    except ApiError:
        return
    inbox.allowed = frozenset(str(kind).lower() for kind in wanted)


def _drop_pending_if_asked(inbox: Inbox, call: Call) -> None:
    if call.flag("drop_pending_updates"):
        inbox.pending.clear()


WAITING: Final[Mapping[str, WaitingHandler]] = MappingProxyType(
    {
        "getupdates": _get_updates,
        "setwebhook": _set_webhook,
        "deletewebhook": _delete_webhook,
        "getwebhookinfo": _get_webhook_info,
    }
)
NAMES: Final[Mapping[str, str]] = MappingProxyType(
    {name.lower(): name for name in ("getUpdates", "setWebhook", "deleteWebhook", "getWebhookInfo")}
)
