"""Asks RabbitMQ's management API, which tells what AMQP does not: where replicas are, and what a node has left."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeVar
from urllib.parse import unquote, urlsplit

from floodgate.broker.errors import AccessRefusedError, RabbitMQUnreachableError
from floodgate.broker.settings.model import Settings

ANSWER_SECONDS: Final = 10.0

T = TypeVar("T")
AskPath = Callable[[str], Any]
"""Returns what the API answers to a path, such as ``nodes``."""


def ask_management(settings: Settings, read: Callable[[AskPath], T]) -> T:
    """Return what ``read`` makes of the first address that answers; another may have answered some of its questions.

    Raises:
        AccessRefusedError: the account is wrong or lacks the tag `monitoring`.
        RabbitMQUnreachableError: no address answers.
    """
    last: Exception | None = None
    for url in settings.rabbitmq_management_urls:
        try:
            return read(partial(_get, url))
        except urllib.error.HTTPError as error:
            if error.code in (401, 403):
                raise AccessRefusedError(
                    f"RabbitMQ's management API at {_where(url)} refuses the account: check the password in "
                    "FLOODGATE_RABBITMQ_MANAGEMENT_URL, and give the account the tag `monitoring`."
                ) from None
            last = error
        except (OSError, ValueError, KeyError, TypeError) as error:
            last = error
    where = ", ".join(map(_where, settings.rabbitmq_management_urls))
    raise RabbitMQUnreachableError(
        f"RabbitMQ's management API does not answer at {where} ({type(last).__name__}): enable the plugin "
        "rabbitmq_management, and check FLOODGATE_RABBITMQ_MANAGEMENT_URL."
    )


def _get(url: str, path: str) -> Any:
    parts = urlsplit(url)
    account = f"{unquote(parts.username or 'guest')}:{unquote(parts.password or 'guest')}"
    host = parts.netloc.rpartition("@")[2]
    request = urllib.request.Request(f"{parts.scheme}://{host}{parts.path.rstrip('/')}/api/{path}")
    request.add_header("Authorization", "Basic " + base64.b64encode(account.encode()).decode())
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # none: RabbitMQ is on the own network
    with opener.open(request, timeout=ANSWER_SECONDS) as answer:
        return json.load(answer)


def _where(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[2]
