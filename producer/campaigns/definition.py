"""What a campaign is: its definition, as written in a TOML file or given to the API.

    name = "spring"

    [content]
    text = "Hello {{ first_name }}!"
    parse_mode = "HTML"

    [content.fallbacks]
    first_name = "there"

Every text in ``[content]`` is a template, at any depth. See :mod:`floodgate.producer.campaigns.content.templates`.
"""

from __future__ import annotations

import tomllib
from datetime import time, timedelta
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self
from zoneinfo import available_timezones

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticSerializationError

from floodgate.broker.errors import CampaignError, JobError
from floodgate.broker.messages.chats import chat_key
from floodgate.broker.messages.job import BotName, OnUncertain
from floodgate.broker.messages.methods import canonical_method

# As a job's campaign label, and in job ids.
MAX_NAME: Final = 40
CampaignName = Annotated[str, StringConstraints(pattern=rf"^[a-z0-9][a-z0-9._-]{{0,{MAX_NAME - 1}}}$")]


def _report_chat(chat: object) -> str:
    try:
        return chat_key(chat)
    except JobError as error:
        raise ValueError(str(error)) from None


ReportChat = Annotated[str, BeforeValidator(_report_chat)]
Share = Annotated[float, Field(gt=0, le=1)]

WEEKDAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DELETES: Final = "deleteMessage"
MAX_DEFINITION_BYTES: Final = 256 * 1024
# Methods whose messages carry no buttons.
_WITHOUT_BUTTONS: Final = frozenset(
    {"copyMessages", "forwardMessage", "forwardMessages", "sendChatAction", "sendMediaGroup"}
)


class TemplateMode(StrEnum):
    """How Telegram reads a text, and so how templates escape what they insert."""

    NONE = "none"
    HTML = "HTML"
    MARKDOWN_V2 = "MarkdownV2"


class Missing(StrEnum):
    """What becomes of a recipient for whom a field is missing that has no fallback."""

    FAIL = "fail"  # the check refuses the campaign
    SKIP = "skip"  # the recipient is left out


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Content(BaseModel):
    """A Bot API call as a template. Fields that are not named here are parameters of the method."""

    model_config = ConfigDict(extra="allow", frozen=True)

    method: str = "sendMessage"
    parse_mode: TemplateMode = TemplateMode.NONE
    fallbacks: dict[str, str] = Field(default_factory=dict)
    missing: Missing = Missing.FAIL
    unsubscribe: str | None = None
    """The text of a button, a template: whoever presses it gets no campaign of the bot any more."""
    unsubscribe_answer: Annotated[str, StringConstraints(min_length=1, max_length=200)] = (
        "You will get no more of these messages."
    )
    bot_username: Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_]{3,31}$")] | None = None
    """Gives templates the variable ``deep_link``, a link that starts the bot and names the recipient."""

    @model_validator(mode="after")
    def _known(self) -> Self:
        try:
            method = canonical_method(self.method)
        except JobError as error:
            raise ValueError(str(error)) from None
        if "chat_id" in self.params:
            raise ValueError("chat_id comes from the audience: leave it out of the content")
        try:
            self.model_dump_json()
        except PydanticSerializationError:
            raise ValueError("a parameter cannot be written as JSON in UTF-8") from None
        if self.unsubscribe is not None:
            self._check_has_buttons(method)
        return self

    def _check_has_buttons(self, method: str) -> None:
        if method in _WITHOUT_BUTTONS:
            raise ValueError(f"a message of {method} has no buttons: leave out unsubscribe")
        markup = self.params.get("reply_markup", {"inline_keyboard": []})
        if not isinstance(markup, dict) or not isinstance(markup.get("inline_keyboard"), list):
            raise ValueError("unsubscribe needs a reply_markup with an inline_keyboard, or none")

    @property
    def params(self) -> dict[str, Any]:
        """The parameters of the call, still templates."""
        return dict(self.__pydantic_extra__ or {})

    @property
    def is_correction(self) -> bool:
        """Whether it edits or deletes a message instead of sending one."""
        return self.method == DELETES or self.method.startswith("editMessage")


class Variant(Part):
    """One of several contents, for a share of the audience."""

    name: CampaignName
    share: Share
    content: Content


class Rules(Part):
    """What stops a campaign. A stopped campaign can be resumed."""

    equal_refusals_in_a_row: int = Field(20, ge=1)
    refused_share: Share = 0.2
    unreachable_share: Share = 0.5
    too_many_requests: int = Field(5, ge=0, le=10_000)
    """More answers 429 than this while the latest ``window`` outcomes came in stop it."""
    window: int = Field(200, ge=20)
    """The number of latest outcomes that the shares are of."""


def is_zone(name: object) -> bool:
    """Return whether this is the name of a time zone."""
    return isinstance(name, str) and name in _zones()


@cache
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())


class QuietHours(Part):
    """A time of the day at which nothing is sent, in the recipient's time zone. May span midnight."""

    since: time
    until: time


class Schedule(Part):
    """When recipients get the message."""

    at: AwareDatetime | None = None
    local_time: time | None = None
    """A time of the day in each recipient's time zone."""
    zone_field: str = "time_zone"
    zone: str = "UTC"
    """The time zone of recipients who have none."""
    quiet: QuietHours | None = None
    weekdays: frozenset[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]] = frozenset(WEEKDAYS)
    finish_by: AwareDatetime | None = None
    share_of_rate: Share = 1.0
    start_within: timedelta = timedelta(hours=1)
    """A start that was missed by more than this asks instead of sending."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if not is_zone(self.zone):
            raise ValueError(f"zone {self.zone!r} is not a time zone: write one such as Europe/Berlin")
        if not self.weekdays:
            raise ValueError("weekdays is empty: nothing would ever be sent")
        if self.at and self.finish_by and self.finish_by <= self.at:
            raise ValueError("finish_by is not after at")
        return self

    @property
    def is_local(self) -> bool:
        """Whether recipients in different time zones get the message at different times."""
        return self.local_time is not None or self.quiet is not None or len(self.weekdays) < len(WEEKDAYS)


class Definition(Part):
    """A campaign's definition."""

    name: CampaignName
    bot: BotName | None = None
    content: Content | None = None
    variants: tuple[Variant, ...] = ()
    hold_out: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """The share of the audience that gets nothing, for comparison."""
    canary: int = Field(0, ge=0)
    """So many are sent first; the rest follows if the rules allow it."""
    priority: Literal["bulk", "interactive"] = "bulk"
    on_uncertain: OnUncertain = OnUncertain.DEAD_LETTER
    chat_field: str = "chat_id"
    weight: Annotated[float, Field(gt=0, le=100)] = 1.0
    """The campaign's share of its bot's rate, relative to that of the bot's other running campaigns."""
    report_to: ReportChat | None = None
    """A chat in which one message shows the progress."""
    rest: Annotated[timedelta, Field(gt=timedelta(0), le=timedelta(days=31))] | None = None
    """A chat that got a message of any of the bot's campaigns gets this one no sooner than this much later."""
    schedule: Schedule = Schedule()
    rules: Rules = Rules()

    @model_validator(mode="after")
    def _has_content(self) -> Self:
        if (self.content is None) == (not self.variants):
            raise ValueError("give either [content] or [[variants]]")
        if self.variants and abs(sum(each.share for each in self.variants) - 1) > 1e-6:
            raise ValueError(f"the shares of the variants add up to {sum(v.share for v in self.variants):g}, not to 1")
        if len({each.name for each in self.variants}) < len(self.variants):
            raise ValueError("two variants have the same name")
        return self

    @property
    def contents(self) -> tuple[Content, ...]:
        """The contents by the number of their variant."""
        return (self.content,) if self.content else tuple(each.content for each in self.variants)


def read_definition(path: Path) -> Definition:
    """Read a definition from a TOML file.

    Raises:
        CampaignError: the file cannot be read, is not TOML, or a field is wrong.
    """
    return parse_definition(read_fields(path), str(path))


def read_fields(path: Path) -> dict[str, Any]:
    """Read the fields of a definition, or of a content, from a TOML file.

    Raises:
        CampaignError: the file cannot be read, or is not TOML.
    """
    text = read_text(path, MAX_DEFINITION_BYTES, "a campaign's definition")
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise CampaignError(f"{path} is not valid TOML: {error}.") from None


def read_text(path: Path, most_bytes: int, what: str) -> str:
    """Read a small text file.

    Raises:
        CampaignError: the file cannot be read, is not UTF-8, or is larger than ``most_bytes``: it cannot be ``what``.
    """
    try:
        if path.stat().st_size > most_bytes:
            raise CampaignError(f"{path} is larger than {most_bytes} bytes: is it {what}?")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise CampaignError(f"Cannot read {path}: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise CampaignError(f"{path} is not UTF-8 text.") from None


def parse_definition(fields: object, source: str) -> Definition:
    """Validate a definition's fields. ``source`` names their origin in errors.

    Raises:
        CampaignError: a field is wrong.
    """
    try:
        return Definition.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        why = first["msg"].removeprefix("Value error, ").rstrip(".")
        raise CampaignError(f"{source}: {field + ': ' if field else ''}{why}.") from None
