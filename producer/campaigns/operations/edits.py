"""Changes the definition of a campaign for the recipients who have not got their message."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from floodgate.broker.errors import CampaignError
from floodgate.producer.campaigns.definition import Definition
from floodgate.producer.campaigns.operations.checks import check
from floodgate.producer.campaigns.states import RecipientState
from floodgate.producer.campaigns.storage.records import Campaign, Recipient
from floodgate.producer.campaigns.storage.store import CampaignStore

EDITABLE: Final = frozenset({"content", "variants", "rules", "schedule", "weight"})
"""The fields that may change; of the variants, only their contents."""
LEFT: Final = (RecipientState.WAITING, RecipientState.RELEASED)


def edit(
    store: CampaignStore,
    name: str,
    definition: Definition,
    watch: Callable[[Iterable[Recipient]], Iterator[Recipient]] = iter,
) -> Campaign:
    """Replace a campaign's definition, once the message of everyone who waits has been checked. Its leader takes back
    the released jobs whose calls have not begun, and renders them anew. Return the campaign with its new version.

    Args:
        watch: passes on the recipients as they are checked.

    Raises:
        CampaignError: there is no such campaign, or it has no audience or was cancelled; the new definition changes
            what is fixed, or Telegram would refuse a message; or the campaign was edited in the meantime.
    """
    campaign = store.get(name)
    _refuse_other_changes(campaign, definition)
    if findings := check(definition, watch(store.recipients(name, LEFT))).findings:
        raise CampaignError(
            f"{name} is not edited: {findings[0].why} Recipients with this error: {findings[0].recipients} (the first "
            f"is {findings[0].first})."
        )
    return store.replace_definition(campaign, definition)


def _refuse_other_changes(campaign: Campaign, definition: Definition) -> None:
    before, after = campaign.definition, definition
    if after.bot == campaign.bot:
        after = after.model_copy(update={"bot": before.bot})
    fixed = Definition.model_fields.keys() - EDITABLE
    changed = {field for field in fixed if getattr(before, field) != getattr(after, field)}
    if _shares(before) != _shares(after):
        changed.add("the names or shares of variants")
    if changed:
        raise CampaignError(
            f"The edit of {campaign.name} changes {', '.join(sorted(changed))}, but the audience was divided and "
            "partly served by the former definition: only content, the contents of variants, rules, schedule and "
            "weight may change."
        )


def _shares(definition: Definition) -> list[tuple[str, float]]:
    return [(variant.name, variant.share) for variant in definition.variants]
