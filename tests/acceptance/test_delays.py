"""A scheduled job waits in RabbitMQ instead of in a worker, even through a restart of RabbitMQ."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta

import pika

from floodgate.broker.amqp import delay_ladder
from rabbitmq_node.node import Node
from tests.acceptance.conftest import MakeStage
from tests.acceptance.server import rows
from tests.acceptance.stage import Stage
from tests.services import Vhost
from tests.waiting import until

SOON = timedelta(seconds=2)
LATER = timedelta(minutes=10)
MOST_LATE_SECONDS = 0.3


def test_a_job_due_in_two_seconds_is_sent_on_time_and_one_due_in_ten_minutes_waits_in_the_ladder(
    stage: Stage, vhost: Vhost
) -> None:
    worker = stage.worker()
    client = stage.client()
    client.send_message(chat_id=1, text="first")  # opens the connection, so that this is not timed
    until(lambda: stage.sent() == ["first"])
    client.send_message(chat_id=42, text="later", delay=LATER)
    asked = time.time()
    client.send_message(chat_id=43, text="soon", delay=SOON)
    assert waiting(vhost) == {"on the ladder": 2, "unacked": 0}, "neither holds worker memory"

    until(lambda: stage.sent() == ["first", "soon"])
    late = stage.control.arrivals()[-1].wall - asked - SOON.total_seconds()
    assert 0 <= late <= MOST_LATE_SECONDS
    assert waiting(vhost) == {"on the ladder": 1, "unacked": 0}
    assert worker.stop() == 0


def test_scheduled_jobs_survive_a_restart_of_rabbitmq(new_node: Callable[..., Node], new_stage: MakeStage) -> None:
    node = new_node().start()
    stage = new_stage(node.url)
    client = stage.client()
    later = client.send_message(chat_id=42, text="later", delay=LATER)
    asked = time.time()
    client.send_message(chat_id=43, text="soon", delay=SOON)
    node.restart()

    stage.worker()
    until(lambda: stage.sent() == ["soon"], 30)
    assert stage.control.arrivals()[-1].wall - asked >= SOON.total_seconds()
    everywhere = Vhost("/", node)
    assert waiting(everywhere) == {"on the ladder": 1, "unacked": 0}
    assert client.status(later) is None, "no worker has heard of it"


def waiting(vhost: Vhost) -> dict[str, int]:
    """Counts messages in the ladder's queues and in the hands of consumers. It asks channels and queues directly:
    `list_queues` may be five seconds out of date."""
    levels = [delay_ladder.level_name(level) for level in range(delay_ladder.LEVELS)]
    with pika.BlockingConnection(pika.URLParameters(vhost.url)) as connection:
        channel = connection.channel()
        on_the_ladder = sum(channel.queue_declare(level, passive=True).method.message_count for level in levels)
    channels = rows(vhost, "list_channels", "vhost", "messages_unacknowledged")
    return {
        "on the ladder": on_the_ladder,
        "unacked": sum(row["messages_unacknowledged"] for row in channels if row["vhost"] == vhost.name),
    }
