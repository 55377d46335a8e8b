"""Settings of the web pages: the ``FLOODGATE_WEB__…`` part of :class:`floodgate.broker.settings.model.Settings`."""

from __future__ import annotations

from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator


class WebSettings(BaseModel):
    """The address of the web pages."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    address: str = Field(
        "127.0.0.1:8090",
        description="Address and port of `floodgate web`, as in `127.0.0.1:8090` or `[::1]:8090`; port 0 picks a free "
        "one. Defaults to this machine only.",
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

    @property
    def host(self) -> str:
        """The host name or IP address."""
        return str(urlsplit(f"//{self.address}").hostname)

    @property
    def port(self) -> int:
        """The port; 0 for a free one."""
        return urlsplit(f"//{self.address}").port or 0
