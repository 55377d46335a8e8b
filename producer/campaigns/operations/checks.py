"""Checks a campaign before its start: renders every recipient's message, and reports what Telegram would refuse.

In constant memory: errors are counted by what is wrong, with the first recipient of each.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from floodgate.broker.errors import CampaignError, InvalidParamsError
from floodgate.producer.campaigns.content.markup import UnbalancedError, visible_length
from floodgate.producer.campaigns.content.templates import ContentTemplate, MissingFieldError
from floodgate.producer.campaigns.definition import Content, Definition, Missing
from floodgate.producer.campaigns.states import RecipientState
from floodgate.producer.campaigns.storage.records import Recipient
from floodgate.producer.checks import MAX_CAPTION, MAX_TEXT, checked

MAX_CALLBACK_BYTES: Final = 64
MAX_BUTTONS: Final = 100
# Different errors that a report lists; the rest is counted together.
MOST_ERRORS: Final = 20


@dataclass(frozen=True, slots=True)
class CheckFinding:
    """One kind of error: how many recipients have it, and the first of them."""

    why: str
    recipients: int
    first: str
    """The chat of the first recipient."""


@dataclass(slots=True)
class CheckReport:
    """The result of a check."""

    checked: int = 0
    skipped: int = 0
    """Recipients who lack a field, and are to be skipped."""
    longest: int = 0
    """Of all texts and captions, after parsing, in UTF-16 code units."""
    longest_chat: str | None = None
    _errors: dict[str, CheckFinding] = field(default_factory=dict)

    @property
    def findings(self) -> tuple[CheckFinding, ...]:
        """The errors, the most frequent first. A campaign with any must not start."""
        return tuple(sorted(self._errors.values(), key=lambda each: -each.recipients))

    def as_json(self) -> dict[str, object]:
        """Return the report as JSON values."""
        return {
            "checked": self.checked,
            "skipped": self.skipped,
            "longest": self.longest,
            "findings": [asdict(finding) for finding in self.findings],
        }

    def add(self, why: str, chat: str) -> None:
        """Count an error of one recipient."""
        if why not in self._errors and len(self._errors) >= MOST_ERRORS:
            why = "other errors"
        before = self._errors.get(why)
        self._errors[why] = CheckFinding(
            why, 1 + (before.recipients if before else 0), before.first if before else chat
        )

    def measure(self, length: int, chat: str) -> None:
        """Note the length of a text."""
        if length > self.longest:
            self.longest, self.longest_chat = length, chat


def check(definition: Definition, recipients: Iterable[Recipient]) -> CheckReport:
    """Render every recipient's message and check it.

    Raises:
        CampaignError: a template is wrong for all recipients.
    """
    templates = [(content, ContentTemplate(content)) for content in definition.contents]
    report = CheckReport()
    for recipient in recipients:
        if recipient.state is RecipientState.HELD_OUT:
            continue
        report.checked += 1
        content, template = templates[recipient.variant]
        try:
            params = template.render(recipient.fields)
            _check_call(content, recipient, params, report)
        except MissingFieldError as error:
            if content.missing is Missing.SKIP:
                report.skipped += 1
            else:
                report.add(str(error), recipient.chat)
        except (CampaignError, InvalidParamsError) as error:
            report.add(str(error), recipient.chat)
    return report


def _check_call(content: Content, recipient: Recipient, params: Mapping[str, Any], report: CheckReport) -> None:
    checked(content.method, {**recipient.address(content), **params})
    for name, longest in (("text", MAX_TEXT), ("caption", MAX_CAPTION)):
        if isinstance(text := params.get(name), str):
            length = _length(content, name, text)
            report.measure(length, recipient.chat)
            if length > longest:
                raise CampaignError(f"{name} is longer than {longest} characters.")
            if name == "text" and not text.strip():
                raise CampaignError("text is empty.")
    for button in _buttons(params):
        _check_button(button)


def _length(content: Content, name: str, text: str) -> int:
    try:
        return visible_length(text, content.parse_mode)
    except UnbalancedError as error:
        raise CampaignError(f"The markup of {name} is wrong: {error}.") from None


def _buttons(params: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    markup = params.get("reply_markup")
    rows = markup.get("inline_keyboard", ()) if isinstance(markup, Mapping) else ()
    buttons = [button for row in rows for button in row if isinstance(button, Mapping)]
    if len(buttons) > MAX_BUTTONS:
        raise CampaignError(f"The keyboard has more than {MAX_BUTTONS} buttons.")
    yield from buttons


def _check_button(button: Mapping[str, Any]) -> None:
    if not str(button.get("text", "")).strip():
        raise CampaignError("A button has no text.")
    if len(str(button.get("callback_data", "")).encode()) > MAX_CALLBACK_BYTES:
        raise CampaignError(f"The callback_data of a button has more than {MAX_CALLBACK_BYTES} bytes.")
    url = button.get("url")
    if url is not None and not str(url).startswith(("http://", "https://", "tg://")):
        raise CampaignError("The url of a button does not start with http://, https:// or tg://.")
