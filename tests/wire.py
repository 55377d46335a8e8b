"""A replacement for RabbitMQ in a worker's test."""

from __future__ import annotations

from dataclasses import dataclass, field

from floodgate.broker.messages.publication import Publication


@dataclass
class Wire:
    """Replaces RabbitMQ: keeps publications in a list."""

    published: list[Publication] = field(default_factory=list)

    @property
    def publisher(self) -> Wire:
        return self

    async def apublish(self, publication: Publication) -> None:
        self.published.append(publication)

    async def aclose(self) -> None: ...
