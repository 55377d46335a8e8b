"""What a test of a worker has in place of RabbitMQ."""

from __future__ import annotations

from dataclasses import dataclass, field

from floodgate.broker.messages.publication import Publication


@dataclass
class Wire:
    """Stands for RabbitMQ: what would go there is kept in a list."""

    published: list[Publication] = field(default_factory=list)

    @property
    def publisher(self) -> Wire:
        return self

    async def apublish(self, publication: Publication) -> None:
        self.published.append(publication)

    async def aclose(self) -> None: ...
