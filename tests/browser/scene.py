"""A Floodgate at work, for a browser to look at: two bots, a worker, jobs that wait, dead letters, a campaign."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, Final

from floodgate.broker.amqp import queue_admin
from floodgate.broker.amqp.connections import Connections
from floodgate.broker.settings.model import Settings
from floodgate.broker.state.stores import open_store
from floodgate.fake_telegram.server import running_fake
from floodgate.producer.campaigns.operations.service import Campaigns
from floodgate.producer.client import Client
from tests.acceptance.stage import Stage
from tests.processes import FloodgateProcess
from tests.waiting import until

BUSY, QUIET = "news", "support"
BOTS: Final = {BUSY: "100200300:" + "A" * 35, QUIET: "400500600:" + "B" * 35}
TOKENS: Final = {role: f"{role}-token-of-enough-length" for role in ("read", "operate", "admin")}
GROUP: Final = -1001234567890
BLOCKED, WRONG = 901, 902  # chats that answer 403, and 400
CLEARED, DROPPED = 903, 904  # the same, for the tests that change them
SCRIPT: Final = "<script>window.hit = 1</script><img src=x onerror='window.hit = 1'>"
REFUSAL: Final = f"Bad Request: can't parse entities: unsupported tag {SCRIPT}"
CAMPAIGN: Final = "spring-sale"
RECIPIENTS: Final = 400
READY: Final = re.compile(r"ready at (http://\S+)")


class Scene:
    """What a test acts on and looks at. Used by one thread."""

    def __init__(self, stage: Stage, stack: ExitStack) -> None:
        self.stage = stage
        self.control = stage.control
        self.settings = Settings(
            _env_file=None,
            rabbitmq_url=stage.rabbitmq_url,
            telegram_api_url=stage.telegram_url,
            state_url=stage.env["FLOODGATE_STATE_URL"],
            campaigns_url=stage.env["FLOODGATE_CAMPAIGNS_URL"],
            bots=BOTS,
            partitions=stage.partitions,
            update_partitions=stage.partitions,
        )
        self.store = stack.enter_context(closing(open_store(self.settings)))
        for bot in BOTS:
            self.store.vouch_idle(bot)
        self.worker = stage.worker()
        self.client = stack.enter_context(Client(self.settings))
        self.campaigns = stack.enter_context(closing(Campaigns(self.settings)))
        self.connections = Connections(self.settings, "test")
        stack.callback(self.connections.stop, 2)
        web = FloodgateProcess("web", env=stage.env, home=stage.home, name="web")
        self.web = stage.keep(web).start("The pages are ready at")
        found = READY.search(self.web.log)
        assert found is not None
        self.url = found[1]

    def send(self, chat: int, text: str, bot: str = BUSY, **options: Any) -> str:
        """Enqueues a message; returns its job's id."""
        job = self.client.job("sendMessage", chat_id=chat, text=text, bot=bot, **options)
        return self.client.enqueue(job).id

    def crowd(self, jobs: int, bot: str = BUSY, chats: int = 300) -> None:
        """Enqueues many messages, which keep a bot at its limit."""
        self.client.enqueue_many(
            self.client.job("sendMessage", chat_id=10_000 + n % chats, text=f"News {n}", bot=bot, priority="bulk")
            for n in range(jobs)
        )

    def dead(self, bot: str = BUSY) -> int:
        """Counts the dead letters of a bot at RabbitMQ."""
        queue = f"dead.{bot}"
        return queue_admin.depth(self.connections, [queue])[queue] or 0


@contextmanager
def scene(rabbitmq_url: str, home: Path, fill: Callable[[Scene], None], **env: str) -> Iterator[Scene]:
    """Starts all processes, and fills them with work."""
    with ExitStack() as stack:
        fake = stack.enter_context(running_fake())
        extra = {
            "FLOODGATE_BOTS": json.dumps(BOTS),
            "FLOODGATE_WEB__ADDRESS": "127.0.0.1:0",
            "FLOODGATE_WEB__TOKENS": json.dumps(
                {f"{role}-ann": {"token": token, "role": role} for role, token in TOKENS.items()}
            ),
            **env,
        }
        stage = Stage(rabbitmq_url, fake.url, home, extra=extra)
        stack.callback(stage.close)
        made = Scene(stage, stack)
        fill(made)
        yield made


def fill_with_trouble(made: Scene) -> None:
    """Gives the worker much to send, and brings about what a page can show. Texts and errors hold a script."""
    made.control.set_chat(BLOCKED, CLEARED, trouble="blocked")
    made.control.set_chat(WRONG, DROPPED, trouble="answer", code=400, description=REFUSAL)
    for chat in (BLOCKED, CLEARED, DROPPED):
        made.send(chat, "Are you there?")
    for number in range(3):
        made.send(WRONG, f"{number} {SCRIPT}")
    until(lambda: len(made.store.unreachable(BUSY)) == 2 and made.dead() == 6)
    for number in range(200):  # at 20 a minute, more than the tests take
        made.send(GROUP, f"Line {number}")
    audience = [{"chat_id": 20_000 + n, "first_name": SCRIPT} for n in range(RECIPIENTS)]
    content = {"text": "Hello {{ first_name }}, spring is here."}
    made.campaigns.create({"name": CAMPAIGN, "bot": BUSY, "content": content}, audience)
    made.crowd(6000)
    until(lambda: made.store.snapshot(BUSY).sent_last_second > 10)
