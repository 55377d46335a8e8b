"""Recipients who answer a campaign: with a receiver, a handler worker and a send worker as a bot has them."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

from floodgate.broker.settings.model import Settings
from floodgate.fake_telegram.control import Arrived
from floodgate.producer.campaigns.operations.service import Campaigns
from floodgate.producer.campaigns.responses.responses import ResponseKind
from floodgate.producer.campaigns.states import CampaignState
from tests.acceptance.conftest import MakeStage
from tests.acceptance.stage import BOT, TOKEN, Stage
from tests.processes import FloodgateProcess
from tests.services import Vhost
from tests.waiting import until

BOT_ID = int(TOKEN.partition(":")[0])
STOPPING, PRESSING, STARTING, REPLYING, BLOCKING, SILENT = range(1001, 1007)
BUY = [{"text": "Buy", "callback_data": "buy"}]
SPRING = {
    "name": "spring",
    "content": {
        "text": "Our sale begins",
        "unsubscribe": "Stop these messages",
        "unsubscribe_answer": "Gone!",
        "reply_markup": {"inline_keyboard": [BUY]},
    },
}
THEIR_BOT = """
from floodgate import on_update

@on_update
async def note(update, client):
    kind = next(name for name in update.body if name != "update_id")
    await client.send_message(chat_id=1, text=f"handled {kind} {update.chat}", dedupe_key=update.message_id)
"""


def start(stage: Stage, *command: str, ready: str) -> None:
    stage.keep(FloodgateProcess(*command, env=stage.env, home=stage.home, name=command[-1])).start(ready)


def test_responses_are_counted_and_whoever_unsubscribes_gets_no_later_campaign(
    new_stage: MakeStage, vhost: Vhost, tmp_path: Path
) -> None:
    stage = new_stage(vhost.url, extra={"FLOODGATE_CAMPAIGNS_RESPONSE_HOURS": "1"})
    (tmp_path / "their_bot.py").write_text(THEIR_BOT)
    stage.worker()
    start(stage, "updates", ready="receiver ready")
    start(stage, "worker", "--updates", "their_bot:note", ready="worker ready")
    start(stage, "campaigns", "run", ready="campaigns ready")
    settings = Settings(_env_file=None, campaigns_url=stage.env["FLOODGATE_CAMPAIGNS_URL"])
    with closing(Campaigns(settings, BOT)) as campaigns:
        campaigns.create(SPRING, [{"chat_id": chat} for chat in range(STOPPING, SILENT + 1)])
        campaigns.start("spring")
        until(lambda: campaigns.progress("spring").campaign.state is CampaignState.DONE, 60)

        stage.control.inject_updates(BOT_ID, answers(stage))
        until(lambda: set(responses(campaigns)) == {1}, 60)
        assert responses(campaigns) == [1] * len(ResponseKind)
        told = stage.floodgate("campaigns", "results", "spring").stdout
        assert told.startswith("spring: 6 recipients, 6 sent\n  press               1  16.7% (3.0% to 56.4%)\n")
        shown = until(lambda: [call for call in stage.control.arrivals() if call.method == "answerCallbackQuery"])
        assert [call.params["text"] for call in shown] == ["Gone!"]
        until(lambda: len(handled(stage)) == 4)
        assert set(handled(stage)) == {
            f"handled callback_query {PRESSING}",
            f"handled message {STARTING}",
            f"handled message {REPLYING}",
            f"handled my_chat_member {BLOCKING}",
        }
        campaigns.create({**SPRING, "name": "summer"}, [{"chat_id": chat} for chat in (STOPPING, PRESSING)])
        assert [recipient.chat for recipient in campaigns.recipients("summer")] == [str(PRESSING)]


def answers(stage: Stage) -> list[dict[str, Any]]:
    """What the recipients do with their messages."""
    sent = {call.chat_id: call for call in stage.control.arrivals() if call.acted}
    stop = keyboard(sent[STOPPING])[-1][0]["callback_data"]
    return [
        {"user": STOPPING, "callback": stop, "message_id": sent[STOPPING].message_id},
        {"user": PRESSING, "callback": "buy", "message_id": sent[PRESSING].message_id},
        {"user": STARTING, "text": "/start"},
        {
            "message": {
                "chat": {"id": REPLYING},
                "text": "Thanks",
                "reply_to_message": {"message_id": sent[REPLYING].message_id, "chat": {"id": REPLYING}},
            }
        },
        {
            "my_chat_member": {
                "chat": {"id": BLOCKING, "type": "private"},
                "from": {"id": BLOCKING},
                "new_chat_member": {"status": "kicked"},
            }
        },
    ]


def keyboard(call: Arrived) -> Any:
    markup = call.params["reply_markup"]
    return (json.loads(markup) if isinstance(markup, str) else markup)["inline_keyboard"]


def responses(campaigns: Campaigns) -> list[int]:
    """The number of recipients who responded, by kind."""
    [variant] = campaigns.results("spring").variants
    return [variant.responses[kind].number for kind in ResponseKind]


def handled(stage: Stage) -> list[str]:
    return [text for text in stage.sent() if text.startswith("handled")]
