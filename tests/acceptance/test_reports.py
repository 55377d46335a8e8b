"""What running processes report to the state store."""

from __future__ import annotations

import json
from collections import defaultdict

from floodgate.broker.messages import queue_names
from floodgate.broker.state.activity import LIVE_SECONDS, Activity, Resolution, Series
from floodgate.broker.state.stores import open_activity
from tests.acceptance.conftest import MakeStage
from tests.acceptance.gateway.programs import GatewayProcess
from tests.acceptance.stage import BOT, Stage
from tests.services import Vhost
from tests.waiting import until

SLOWLY = LIVE_SECONDS + 50  # on a machine under load
PARTITIONS = 16  # enough for both workers to hold some


def partitions(activity: Activity) -> list[set[str]]:
    """The partitions of jobs that each worker holds."""
    return list(holders(activity).values())


def holders(activity: Activity) -> dict[str, set[str]]:
    """The same by worker."""
    workers = [each for each in activity.processes() if each.role == "worker"]
    return {each.id: {name for name in each.partitions if not queue_names.is_answers_queue(name)} for each in workers}


def active_consumers(vhost: Vhost) -> dict[str, set[str]]:
    """The partitions of each worker of which RabbitMQ says that it is the active consumer."""
    found: dict[str, set[str]] = defaultdict(set)
    for row in json.loads(vhost.ctl("list_consumers", "queue_name", "consumer_tag", "active", "--formatter=json")):
        if row["active"] and not queue_names.is_answers_queue(row["queue_name"]):
            found[row["consumer_tag"].removesuffix("." + row["queue_name"])].add(row["queue_name"])
    return found


def test_the_partitions_of_a_killed_worker_appear_at_the_other_one(new_stage: MakeStage, vhost: Vhost) -> None:
    stage = new_stage(vhost.url, partitions=PARTITIONS)
    names = set(queue_names.send_queues(BOT, PARTITIONS)) - {queue_names.answers_queue(BOT)}
    first = stage.worker()
    activity = open_activity(stage.settings)
    assert until(lambda: partitions(activity) == [names], SLOWLY)
    stage.worker()
    two = until(lambda: found if len(found := partitions(activity)) == 2 and all(found) else None, SLOWLY)
    assert two[0] | two[1] == names
    assert until(lambda: active_consumers(vhost) == holders(activity), SLOWLY), "RabbitMQ agrees"
    first.kill()
    until(lambda: partitions(activity) == [names], SLOWLY)
    activity.close()


def test_a_gateway_reports_and_leaves_and_what_was_sent_is_in_the_history(stage: Stage) -> None:
    worker = stage.worker()
    activity = open_activity(stage.settings)
    with GatewayProcess(stage.env | {"FLOODGATE_GATEWAY__PORT": "0"}, stage.home) as gateway:
        until(lambda: {each.role for each in activity.processes()} == {"worker", "gateway"})
        stage.client().send_message(chat_id=42, text="hi")
        until(lambda: sum(v or 0 for v in activity.history(BOT, Resolution.MINUTE).values[Series.SENT]) == 1)
        gateway.running.signal()
        assert gateway.running.wait() == 0
    until(lambda: [each.role for each in activity.processes()] == ["worker"])
    worker.signal()
    assert worker.wait() == 0
    until(lambda: activity.processes() == ())
    activity.close()
