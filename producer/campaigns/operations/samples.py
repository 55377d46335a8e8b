"""Makes a campaign's message as one recipient gets it, for another chat: to look at it before, or while, it is sent."""

from __future__ import annotations

from typing import Final

from floodgate.broker.errors import CampaignError
from floodgate.broker.messages.chats import chat_key
from floodgate.broker.messages.job import Job, Priority, new_job
from floodgate.broker.settings.model import Settings
from floodgate.producer.campaigns.content.templates import ContentTemplate
from floodgate.producer.campaigns.states import RecipientState
from floodgate.producer.campaigns.storage.records import Recipient
from floodgate.producer.campaigns.storage.store import CampaignStore

# For a draft that has no recipients yet: every field has its fallback.
_NOBODY: Final = Recipient(0, "", {}, 0, RecipientState.WAITING, 0, None, None, None, None)


def sample_job(
    store: CampaignStore, settings: Settings, name: str, to: int | str, recipient: int | str | None = None
) -> Job:
    """Make a job that sends to the chat ``to`` what the recipient with the chat ``recipient`` gets; by default, the
    first. It counts for nobody: the recipient gets the message all the same.

    Raises:
        CampaignError: there is no such campaign or recipient, or the message cannot be rendered for it.
        JobError: a chat is neither an id nor an @name, or Telegram would refuse the call.
    """
    campaign = store.get(name)
    if campaign.corrects is not None:
        raise CampaignError(f"{name} corrects messages, so it has none that could be sent to another chat.")
    one = _recipient(store, name, recipient)
    template = ContentTemplate(campaign.definition.contents[one.variant])
    params = {"chat_id": chat_key(to), **template.render(one.fields)}
    charge = settings.own_charge(template.method)
    return new_job(template.method, params, bot=campaign.bot, priority=Priority.INTERACTIVE, charge=charge)


def _recipient(store: CampaignStore, name: str, chat: int | str | None) -> Recipient:
    found = store.find_recipient(name, None if chat is None else chat_key(chat))
    if found is None and chat is not None:
        raise CampaignError(f"{chat} is not in the audience of {name}: `floodgate campaigns export {name}` lists it.")
    if found is not None and found.state is RecipientState.HELD_OUT:
        raise CampaignError(f"{found.chat} is held out of {name} and gets no message: choose another recipient.")
    return found or _NOBODY
