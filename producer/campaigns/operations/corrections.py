"""Corrects what a campaign has sent: edits or deletes its messages.

A correction is a campaign of its own, named such as ``spring.edit-1``. Its audience are the recipients who got the
first campaign's message, so it can be paused, resumed, cancelled and accounted for like any other. Chats that have
unsubscribed are among them. A message whose id is not known cannot be corrected, and Telegram deletes no message from a
private chat that is older than 48 hours: these are counted when the correction is created, and a message that becomes
too old while it waits is skipped.

Each call may be made again, because it changes nothing the second time. So a call that was cut off is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from floodgate.broker.errors import CampaignError
from floodgate.broker.messages.job import OnUncertain
from floodgate.producer.campaigns.definition import DELETES, Content, Definition, parse_definition
from floodgate.producer.campaigns.operations.checks import check
from floodgate.producer.campaigns.states import RecipientState
from floodgate.producer.campaigns.storage.records import Campaign, Recipient
from floodgate.producer.campaigns.storage.store import CampaignStore

# What may be given to each method, beside reply_markup. The first one of which a parameter is given is called.
_EDITS: Final[Mapping[str, frozenset[str]]] = {
    "editMessageMedia": frozenset({"media"}),
    "editMessageText": frozenset({"text", "entities", "link_preview_options"}),
    "editMessageCaption": frozenset({"caption", "caption_entities", "show_caption_above_media"}),
    "editMessageReplyMarkup": frozenset({"reply_markup"}),
}
_ALBUM: Final = "sendMediaGroup"


def edit_sent(
    store: CampaignStore,
    name: str,
    changed: object,
    source: str,
    watch: Callable[[Iterable[Recipient]], Iterator[Recipient]] = iter,
) -> Campaign:
    """Create a campaign that edits the messages that a campaign has sent, once each edit has been checked. It is ready.

    Args:
        changed: the fields of a content, or of a definition with the same variants. What a content leaves out, such as
            buttons, stays as it is in the campaign's own.
        source: names their origin in errors.
        watch: passes on the recipients as they are checked.

    Raises:
        CampaignError: there is no such campaign, or none of its messages can be edited; the content is wrong, changes
            what cannot be changed in a message, or Telegram would refuse an edit.
    """
    campaign = store.get(name)
    definition = _definition(campaign, _edited_contents(campaign, changed, source))
    sent = watch(store.recipients(name, [RecipientState.SENT]))
    if findings := check(definition, (each for each in sent if each.message_id is not None)).findings:
        raise CampaignError(
            f"Nothing of {name} is edited: {findings[0].why} Recipients with this error: {findings[0].recipients} "
            f"(the first is {findings[0].first})."
        )
    return store.create_correction(campaign, definition, "edit")


def delete_sent(store: CampaignStore, name: str) -> Campaign:
    """Create a campaign that deletes the messages that a campaign has sent. It is ready.

    Raises:
        CampaignError: there is no such campaign, or none of its messages can be deleted.
    """
    campaign = store.get(name)
    if any(content.method == _ALBUM for content in campaign.definition.contents):
        raise CampaignError(f"{name} sent albums, of which only the first message's id is known: they stay.")
    return store.create_correction(campaign, _definition(campaign, [{"method": DELETES}]), "delete")


def edited_content(before: Content, after: Content) -> dict[str, Any]:
    """Return the content of the edit that makes a message of ``after`` out of one of ``before``.

    Raises:
        CampaignError: nothing of a message would change, or something that cannot be edited.
    """
    method = _edit_method(after)
    editable = _EDITS[method] | {"reply_markup"}
    given = after.model_dump(mode="json", exclude_unset=True)
    kept = before.model_dump(mode="json", exclude_unset=True)
    fixed = [name for name, value in after.params.items() if name not in editable and kept.get(name) != value]
    if fixed:
        raise CampaignError(f"{', '.join(fixed)} cannot be changed in a message that was sent with {before.method}.")
    if "inline_keyboard" not in (kept.get("reply_markup") or {}):
        kept.pop("reply_markup", None)  # a keyboard of the reader's, which belongs to the chat
    carried = editable | Content.model_fields.keys()
    if method == "editMessageReplyMarkup":
        carried -= {"parse_mode"}
    fields = {name: value for name, value in (kept | given).items() if name in carried}
    return fields | {"method": method}


def _definition(campaign: Campaign, contents: list[dict[str, Any]]) -> Definition:
    """Make a correction's definition. All variants share a content if there is only one."""
    variants = campaign.definition.variants
    fields: dict[str, Any] = {"name": campaign.name, "bot": campaign.bot, "on_uncertain": OnUncertain.RESEND}
    if not variants:
        return parse_definition({**fields, "content": contents[0]}, "The correction")
    shared = contents * len(variants) if len(contents) == 1 else contents
    parts = [
        {"name": variant.name, "share": variant.share, "content": content}
        for variant, content in zip(variants, shared, strict=True)
    ]
    return parse_definition({**fields, "variants": parts}, "The correction")


def _edited_contents(campaign: Campaign, changed: object, source: str) -> list[dict[str, Any]]:
    before = campaign.definition
    if not isinstance(changed, Mapping) or not changed.keys() & {"content", "variants"}:
        changed = {"content": changed}
    after = parse_definition({"name": campaign.name, **changed}, source)
    if after.variants and [each.name for each in after.variants] != [each.name for each in before.variants]:
        raise CampaignError(f"{source} has not the variants of {campaign.name}: give one content for all, or the same.")
    contents = after.contents if after.variants else after.contents * len(before.contents)
    return [edited_content(*pair) for pair in zip(before.contents, contents, strict=True)]


def _edit_method(content: Content) -> str:
    for method, params in _EDITS.items():
        if content.params.keys() & params:
            return method
    raise CampaignError(
        "The edit has neither media, text, caption nor reply_markup: nothing of a message would change."
    )
