"""The accounts on RabbitMQ that docs/security.md describes, with the permissions set by its commands."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Any, Final

import pika
import pika.exceptions

from tests.docs.pages import ROOT, blocks, commands
from tests.services import Vhost

PAGE: Final = ROOT / "docs" / "security.md"
ACCOUNTS: Final = ("producer", "worker", "operator")
PASSWORD: Final = "test-password"
FORBIDDEN: Final = 403

_ACTOR: Final = '<<"tests">>'

Channel = Any


def permissions() -> dict[str, list[str]]:
    """Configure, write and read permissions of each account, as the page's commands set them."""
    given: dict[str, list[str]] = {}
    for block in blocks(PAGE):
        for command in commands(block.text):
            words = shlex.split(command.text)
            if words[:2] == ["rabbitmqctl", "set_permissions"]:
                given[words[2]] = words[3:]
    return given


class Accounts:
    """The three accounts in one vhost."""

    def __init__(self, vhost: Vhost) -> None:
        self.vhost = vhost
        made = [self._make(name, rights) for name, rights in permissions().items()]
        vhost.node.ctl("eval", f"{', '.join(made)}, ok.")  # rabbitmqctl takes half a second for one or many

    def user(self, account: str) -> str:
        return f"{account}-{self.vhost.name}"

    def url(self, account: str) -> str:
        return self.vhost.url.replace("guest:guest@", f"{self.user(account)}:{PASSWORD}@")

    def may(self, account: str, act: Callable[[Channel], object]) -> bool:
        """Returns whether RabbitMQ accepts it."""
        with pika.BlockingConnection(pika.URLParameters(self.url(account))) as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            try:
                act(channel)
            except pika.exceptions.ChannelClosedByBroker as refusal:
                assert refusal.reply_code == FORBIDDEN, refusal
                return False
            return True

    def remove(self) -> None:
        gone = [f"rabbit_auth_backend_internal:delete_user({_text(self.user(name))}, {_ACTOR})" for name in ACCOUNTS]
        self.vhost.node.ctl("eval", f"{', '.join(gone)}, ok.")

    def _make(self, account: str, rights: list[str]) -> str:
        user, vhost = _text(self.user(account)), _text(self.vhost.name)
        add = f"rabbit_auth_backend_internal:add_user({user}, {_text(PASSWORD)}, {_ACTOR})"
        allow = f"{user}, {vhost}, {', '.join(map(_text, rights))}, {_ACTOR}"
        return f"{add}, rabbit_auth_backend_internal:set_permissions({allow})"


def _text(value: str) -> str:
    """Formats it as Erlang does."""
    return '<<"' + value.replace("\\", "\\\\") + '">>'
