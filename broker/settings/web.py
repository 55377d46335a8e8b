"""Settings of the web pages: the ``FLOODGATE_WEB__…`` part of :class:`floodgate.broker.settings.model.Settings`."""

from __future__ import annotations

import re
from ipaddress import ip_address, ip_network
from typing import Final, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

# From the one that may do least to the one that may do most.
WebRole = Literal["read", "operate", "admin"]
# A shorter token could be guessed.
MIN_TOKEN: Final = 24
EVERYBODY_ELSE: Final = "*"
_NAME: Final = re.compile(r"[\w.@+-]{1,64}")
_HEADER: Final = re.compile(r"[A-Za-z0-9-]{1,64}")


class WebToken(BaseModel):
    """A token that logs a person in, and what that person may do."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    token: SecretStr
    role: WebRole

    @field_validator("token")
    @classmethod
    def _long_enough(cls, value: SecretStr) -> SecretStr:
        if len(value.get_secret_value()) < MIN_TOKEN:
            raise ValueError(f"the token is shorter than {MIN_TOKEN} characters")
        return value


class WebSettings(BaseModel):
    """The address of the web pages, and who may see them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    address: str = Field(
        "127.0.0.1:8090",
        description="Address and port of `floodgate web`, as in `127.0.0.1:8090` or `[::1]:8090`; port 0 picks a free "
        "one. Defaults to this machine only; any other address needs tokens or a proxy.",
    )
    url: str = Field(
        "",
        description="URL at which browsers reach the pages, if that is not the address, as in "
        "`https://floodgate.example.com` behind a proxy. With `https`, the session cookie is sent over HTTPS only.",
    )
    tokens: dict[str, WebToken] = Field(
        default_factory=dict,
        description="Who may log in, by name, as JSON: "
        '`{"ann": {"token": "some-long-random-text", "role": "operate"}}`. `read` sees everything but the texts of '
        "messages; `operate` also takes the actions that can be undone; `admin` sees texts and takes all actions. The "
        "name goes to the audit log. Without tokens and without a proxy, whoever reaches this machine's own address is "
        "`admin`.",
    )
    proxy_header: str = Field(
        "",
        description="Header in which a proxy names the person whom it has authenticated, as in `X-Forwarded-User`. The "
        "proxy must remove that header from the requests it gets.",
    )
    proxy_addresses: list[str] = Field(
        default_factory=list,
        description='Addresses or networks of that proxy, as JSON: `["10.0.0.5", "fd00::/64"]`. The header is ignored '
        "when it comes from elsewhere.",
    )
    proxy_roles: dict[str, WebRole] = Field(
        default_factory=dict,
        description='Roles by the name in that header, as JSON: `{"ann": "admin", "*": "read"}`. `*` stands for '
        "everybody else; without it, they are refused.",
    )

    @field_validator("address")
    @classmethod
    def _address_form(cls, value: str) -> str:
        parts = urlsplit(f"//{value}")
        try:
            complete = bool(parts.hostname) and parts.port is not None and parts.netloc == value
        except ValueError:  # the port is not a number, or too large
            complete = False
        if not complete or "@" in value:
            raise ValueError("is not an address and a port such as 127.0.0.1:8090")
        return value

    @field_validator("url")
    @classmethod
    def _url_form(cls, value: str) -> str:
        parts = urlsplit(value)
        try:
            whole = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:  # the port is not a number, or too large
            whole = False
        if value and (not whole or value.rstrip("/") != f"{parts.scheme}://{parts.netloc}" or "@" in value):
            raise ValueError("is not a URL without a path, such as https://floodgate.example.com")
        return value.rstrip("/")

    @field_validator("tokens")
    @classmethod
    def _names(cls, value: dict[str, WebToken]) -> dict[str, WebToken]:
        if wrong := [name for name in value if not _NAME.fullmatch(name)]:
            raise ValueError(f"the name {wrong[0][:64]!r} is not up to 64 letters, digits and . _ @ + -")
        if len({token.token.get_secret_value() for token in value.values()}) < len(value):
            raise ValueError("two names have the same token")
        return value

    @field_validator("proxy_header")
    @classmethod
    def _header_form(cls, value: str) -> str:
        if value and not _HEADER.fullmatch(value):
            raise ValueError("is not the name of a header, such as X-Forwarded-User")
        return value

    @field_validator("proxy_addresses")
    @classmethod
    def _networks(cls, value: list[str]) -> list[str]:
        for network in value:
            try:
                ip_network(network)
            except ValueError:
                raise ValueError(
                    f"{network!r} is not an address or a network, such as 10.0.0.5 or 10.0.0.0/24"
                ) from None
        return value

    @model_validator(mode="after")
    def _whole_proxy(self) -> WebSettings:
        given = [bool(part) for part in (self.proxy_header, self.proxy_addresses, self.proxy_roles)]
        if any(given) and not all(given):
            raise ValueError("proxy_header, proxy_addresses and proxy_roles belong together: set all three, or none")
        return self

    @property
    def host(self) -> str:
        """The host name or IP address."""
        return str(urlsplit(f"//{self.address}").hostname)

    @property
    def port(self) -> int:
        """The port; 0 for a free one."""
        return urlsplit(f"//{self.address}").port or 0

    @property
    def local(self) -> bool:
        """Whether the address can be reached from this machine only."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def authenticates(self) -> bool:
        """Whether a viewer has to prove who they are."""
        return bool(self.tokens or self.proxy_header)
