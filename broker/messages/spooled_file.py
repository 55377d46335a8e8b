"""A job's reference to a file that waits in the spool, since bytes never enter RabbitMQ."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

# A form quotes these as they are: a quote or a line break would make another part of them.
_QUOTABLE: Final = r'^[^\x00-\x1f"\\]*$'


class SpooledFile(BaseModel):
    """A job's reference to an upload. ``name`` is the form part that it came as and leaves as."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    name: Annotated[str, Field(min_length=1, max_length=200, pattern=_QUOTABLE)]
    key: Annotated[str, Field(min_length=1, max_length=300)]
    filename: Annotated[str, Field(max_length=300, pattern=_QUOTABLE)] = "file"
    size: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
