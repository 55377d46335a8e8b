"""The pages in this process, with a real RabbitMQ and real stores, behind a viewer that a test chooses.

desk    an operator's desk: its pages over HTTP, and what they act on
again   stops the pages of a desk and starts others with the same stores: again(desk)
"""

from __future__ import annotations

import contextlib
import html
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import uvicorn
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from floodgate.broker.amqp import queue_admin, topology
from floodgate.broker.amqp.connections import Connections
from floodgate.broker.messages import dead_letters, queue_names
from floodgate.broker.messages.job import Job, encode_job, new_job
from floodgate.broker.messages.publication import Publication
from floodgate.broker.settings.model import Settings
from floodgate.broker.state.stores import open_store
from floodgate.producer.campaigns.operations.service import Campaigns
from floodgate.producer.listening import listen, url_of
from floodgate.web import letter_index, picture
from floodgate.web.actions import confirm
from floodgate.web.app import Pages
from floodgate.web.viewer import Action
from tests.services import Vhost, Vhosts
from tests.waiting import until

BOT = "news"
TOKEN = "100200300:" + "A" * 35
PARTITIONS = 2
HIDDEN = re.compile(r'<input type="hidden" name="([^"]*)" value="([^"]*)">')


@dataclass
class StandIn:
    """A viewer whose rights a test sets."""

    name: str = "ann"
    sees_texts: bool = True
    allowed: set[Action] = field(default_factory=lambda: set(Action))

    def may(self, action: Action) -> bool:
        return action in self.allowed


class LetIn:
    """Access control that lets everybody in as one viewer."""

    def __init__(self, app: ASGIApp, viewer: StandIn) -> None:
        self._app = app
        self._viewer = viewer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope.setdefault("state", {})["viewer"] = self._viewer
        await self._app(scope, receive, send)


class Desk:
    """An operator's desk: its pages over HTTP, and what they act on."""

    def __init__(self, rabbitmq_url: str, home: Path, **settings: Any) -> None:
        self.home = home
        self.viewer = StandIn()
        self.settings = Settings(
            _env_file=None,
            **{
                "rabbitmq_url": rabbitmq_url,
                "state_url": f"sqlite:///{home}/state.db",
                "campaigns_url": f"sqlite:///{home}/campaigns.db",
                "bots": {BOT: TOKEN},
                "partitions": PARTITIONS,
                "update_partitions": PARTITIONS,
                **settings,
            },
        )
        self.store = open_store(self.settings)
        self.connections = Connections(self.settings, "test")
        self.campaigns = Campaigns(self.settings, BOT)
        self.pages = Pages(self.settings, [Middleware(LetIn, viewer=self.viewer)])
        self._listener = listen("127.0.0.1", 0, "the port")
        self.url = url_of(self._listener)
        config = uvicorn.Config(self.pages.app, log_config=None, lifespan="on", timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._listener],), name="the pages")
        self.http = httpx.Client(base_url=self.url, follow_redirects=True, timeout=20)

    def start(self) -> Desk:
        """Serves the pages."""
        self._thread.start()
        until(lambda: self._server.started)
        return self

    def stop(self) -> None:
        """Ends everything."""
        self.http.close()
        self._server.should_exit = True
        self._thread.join(20)
        self._listener.close()
        self.campaigns.close()
        self.connections.stop(2)
        self.store.close()

    def get(self, path: str, code: int = 200, **params: str) -> str:
        """Returns the text of a page."""
        answer = self.http.get(path, params=params or None)
        assert answer.status_code == code, answer.text
        return answer.text

    def confirmation(self, action: Action, **params: str) -> str:
        """Returns the page that asks for confirmation."""
        return self.get(f"/actions/{action}", **params)

    def agree(self, action: Action, confirmation: str) -> str:
        """Sends the form of a confirmation as a browser does; returns the page that follows."""
        fields = [(name, html.unescape(value)) for name, value in HIDDEN.findall(confirmation)]
        body = "&".join(f"{quote(name)}={quote(value)}" for name, value in fields)
        answer = self.http.post(
            f"/actions/{action}", content=body, headers={"content-type": "application/x-www-form-urlencoded"}
        )
        assert answer.status_code == 200, answer.text
        return answer.text

    def do(self, action: Action, **params: str) -> str:
        """Takes an action and confirms it; returns the page that says how it ended."""
        return self.agree(action, self.confirmation(action, **params))

    def empty(self) -> None:
        """Deletes what another test left in the bot's queues."""
        queues = [*queue_names.send_queues(BOT, PARTITIONS), *queue_names.dead_queues([BOT])]
        queue_admin.purge(self.connections, queues)

    def job(self, text: str, chat: int = 5, **options: object) -> Job:
        """Makes a job that is not enqueued."""
        params = {"chat_id": chat, "text": text}
        job_id = "job-" + re.sub(r"[^a-z0-9-]", "", text.lower())
        return new_job("sendMessage", params, bot=BOT, job_id=job_id, **options)  # type: ignore[arg-type]

    def bury(self, job: Job, reason: str = "content", description: str = "a test") -> Job:
        """Writes a dead letter."""
        queue = queue_names.home_of(job, PARTITIONS)
        self.connections.publisher.publish(
            dead_letters.dead_job(job, encode_job(job, queue), queue, reason, description)
        )
        return job

    def publish(self, publication: Publication) -> None:
        """Publishes a message."""
        self.connections.publisher.publish(publication)

    def depth(self, queue: str) -> int | None:
        """Counts the ready messages of a queue."""
        return queue_admin.depth(self.connections, [queue])[queue]


@pytest.fixture(scope="module")
def office(vhosts: Vhosts) -> Iterator[Vhost]:
    """A vhost with the bot's queues, for all tests of a module: creating them takes most of a second."""
    vhost = vhosts.take()
    settings = Settings(rabbitmq_url=vhost.url, partitions=PARTITIONS, update_partitions=PARTITIONS, _env_file=None)
    connections = Connections(settings, "test")
    queue_admin.declare(connections, topology.pipeline_of(settings, [BOT]))
    connections.stop(2)
    yield vhost
    vhosts.give_back(vhost)


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages wait for what they show, and actions for their end, however busy the machine is."""
    monkeypatch.setattr(letter_index, "PAGE_SECONDS", 20.0)
    monkeypatch.setattr(confirm, "PAGE_SECONDS", 20.0)
    monkeypatch.setattr(picture, "PATIENCE", timedelta(seconds=20))


@pytest.fixture
def desk(office: Vhost, tmp_path: Path, patience: None) -> Iterator[Desk]:
    with contextlib.ExitStack() as stack:
        made = Desk(office.url, tmp_path)
        stack.callback(made.stop)
        made.store.vouch_idle(BOT)
        made.start().empty()
        yield made


@pytest.fixture
def again() -> Iterator[Callable[[Desk], Desk]]:
    with contextlib.ExitStack() as stack:

        def make(desk: Desk) -> Desk:
            desk.stop()
            made = Desk(desk.settings.rabbitmq_url.get_secret_value(), desk.home)
            stack.callback(made.stop)
            return made.start()

        yield make
