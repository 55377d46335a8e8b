"""Each alert fires and clears: on recorded series with promtool, and in a real Prometheus that scrapes our metrics."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from deploy.__main__ import FOLDER
from deploy.alerts import ALERTS, rules
from deploy.dashboards import dashboards
from floodgate.broker.process.exposition import render
from floodgate.broker.process.metrics import (
    CAMPAIGNS,
    DISK_FREE,
    DISK_LIMIT,
    LIMIT,
    LIMIT_USED,
    OLDEST_JOB,
    OUTAGE,
    PART_UP,
    PAUSES,
    QUEUED,
    RABBITMQ_ALARM,
    STORE_USED,
    TOO_MANY_REQUESTS,
    UNREAD,
    Metrics,
    ProcessRole,
)
from tests.integration.prometheus import PrometheusServer, promtool
from tests.waiting import until

RULES = FOLDER / "prometheus" / "alerts.yml"
BOT = "news"


@dataclass(frozen=True, slots=True)
class Recorded:
    """Series as promtool writes them, with one value a minute; a minute in which the alert fires, and one in which it
    has cleared."""

    series: Mapping[str, str]
    fires_at: int
    clears_at: int


def histogram(name: str, labels: str, below: str, above: str) -> dict[str, str]:
    """Twenty minutes below a bound, twenty above it and twenty below again; 60 observations a minute."""
    text = f"{name}_bucket{{{labels},le="
    total = "0+60x60"
    return {f'{text}"{below}"}}': "0+60x20 1200x19 1200+60x20", f'{text}"{above}"}}': total, f'{text}"+Inf"}}': total}


RECORDED = {
    "FloodgateMetricsMissing": Recorded({'floodgate_up{part="store"}': "_x10 1x10"}, 7, 12),
    "FloodgatePartAway": Recorded({'floodgate_up{part="store"}': "1x4 0x5 1x10"}, 7, 12),
    "FloodgateQueueUnread": Recorded({'floodgate_unread_partitions{bot="news",family="send"}': "0x2 3x6 0x10"}, 7, 12),
    "FloodgateLimitUnused": Recorded(
        {
            'floodgate_limit_used_ratio{bot="news"}': "0.9x2 0.1x10 0.9x20",
            'floodgate_limit_per_second{bot="news"}': "30x40",
            'floodgate_queue_messages{bot="news",kind="bulk"}': "500x40",
            'floodgate_pauses{bot="news",scope="bot",cause="429"}': "0x40",
        },
        *(10, 15),
    ),
    "FloodgateOldestJobTooOld": Recorded(
        {'floodgate_oldest_job_seconds{bot="news",priority="bulk"}': "10x2 22000x6 0x10"}, 7, 12
    ),
    "FloodgateTooManyRequests": Recorded(
        {'floodgate_too_many_requests_total{bot="news",scope="chat"}': "0x3 20x40"}, 5, 20
    ),
    "FloodgateTelegramDown": Recorded({'floodgate_telegram_outage_seconds{bot="news"}': "0x2 90x3 0x5"}, 4, 8),
    "FloodgateBotRefused": Recorded(
        {'floodgate_pauses{bot="news",scope="bot",cause="unauthorized"}': "0x2 1x3 0x5"}, 4, 8
    ),
    "FloodgateDeadLettersRising": Recorded({'floodgate_dead_letters{bot="news"}': "5x3 60x40"}, 8, 30),
    "FloodgateCampaignStopped": Recorded({'floodgate_campaigns{bot="news",state="stopped"}': "_x3 1x3 stale"}, 4, 8),
    "FloodgateCampaignNotLed": Recorded(
        {
            'floodgate_campaigns{bot="news",state="running"}': "1x20",
            'floodgate_processes{role="campaigns"}': "1x2 0x6 1x10",
        },
        *(7, 12),
    ),
    "FloodgateStoreNearlyFull": Recorded({"floodgate_store_used_ratio": "0.5x2 0.9x15 0.5x5"}, 15, 20),
    "FloodgateRabbitMQAlarm": Recorded(
        {'floodgate_rabbitmq_alarm{node="rabbit@a",resource="disk"}': "0x2 1x3 0x5"}, 4, 8
    ),
    "FloodgateRabbitMQDiskLow": Recorded(
        {
            'floodgate_rabbitmq_disk_free_bytes{node="rabbit@a"}': "4e9x2 2.5e9x8 4e9x10",
            'floodgate_rabbitmq_disk_free_bytes{node="rabbit@b"}': "9e9x20",
            'floodgate_rabbitmq_disk_limit_bytes{node="rabbit@a"}': "1e9x20",
            'floodgate_rabbitmq_disk_limit_bytes{node="rabbit@b"}': "1e9x20",
        },
        *(9, 13),
    ),
    "FloodgateRabbitMQUnwatched": Recorded({'floodgate_up{part="management"}': "1x2 0x12 1x10"}, 14, 17),
    "FloodgateUpdateLag": Recorded(histogram("floodgate_update_lag_seconds", 'bot="news"', "10.0", "30.0"), 35, 58),
    "FloodgateLoopLag": Recorded(
        histogram("floodgate_event_loop_lag_seconds", 'job="f",instance="a:1"', "0.25", "0.5"), 35, 58
    ),
}
# Why an alert stays silent although its bound is passed.
SILENT = {
    "FloodgateQueueUnread": {
        'floodgate_unread_partitions{bot="news",family="send"}': "3x20",
        'floodgate_pauses{bot="news",scope="bot",cause="operator"}': "1x20",
    },
    "FloodgatePartAway": {'floodgate_up{part="management"}': "0x20"},
    "FloodgateLimitUnused": {
        'floodgate_limit_used_ratio{bot="news"}': "0x20",
        'floodgate_limit_per_second{bot="news"}': " ".join(["Inf"] * 20),
        'floodgate_queue_messages{bot="news",kind="bulk"}': "500x20",
    },
}


def promtool_test(folder: Path, name: str, series: Mapping[str, str], expected: Mapping[int, bool]) -> None:
    """Runs the rules on series; at each minute the alert is expected to fire or not."""
    firing = f'count(ALERTS{{alertname="{name}",alertstate="firing"}})'
    cases = [
        {
            "expr": firing,
            "eval_time": f"{minute}m",
            "exp_samples": [{"labels": "{}", "value": 1}] if fires else [],
        }
        for minute, fires in expected.items()
    ]
    inputs = [{"series": each, "values": values} for each, values in series.items()]
    test = {"interval": "1m", "input_series": inputs, "promql_expr_test": cases}
    path = folder / "test.yml"
    path.write_text(json.dumps({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [test]}))
    promtool("test", "rules", path)


def test_each_alert_has_a_recorded_series() -> None:
    assert RECORDED.keys() == {alert.name for alert in ALERTS}


@pytest.mark.parametrize("name", RECORDED)
def test_an_alert_fires_and_clears_on_a_recorded_series(name: str, tmp_path: Path) -> None:
    recorded = RECORDED[name]
    before = {} if name == "FloodgateMetricsMissing" else {2: False}
    promtool_test(tmp_path, name, recorded.series, before | {recorded.fires_at: True, recorded.clears_at: False})


@pytest.mark.parametrize("name", SILENT)
def test_an_alert_is_silent_if_its_cause_is_wanted(name: str, tmp_path: Path) -> None:
    promtool_test(tmp_path, name, SILENT[name], {19: False})


def test_promtool_accepts_the_rules_and_the_configurations() -> None:
    assert f"{len(ALERTS)} rules found" in promtool("check", "rules", RULES)
    for configuration in {*RULES.parent.iterdir()} - {RULES}:
        promtool("check", "config", configuration)


class Process:
    """What a process would serve: metrics that a test sets."""

    def __init__(self) -> None:
        self.metrics = Metrics(ProcessRole.WORKER, [BOT])
        self.calm()

    def calm(self) -> None:
        """Sets values that no alert is about."""
        for part in PART_UP.labels["part"]:
            self.metrics.set(PART_UP, 1, part)
        for metric, value, *labels in (
            (LIMIT, 30, BOT),
            (LIMIT_USED, 0.9, BOT),
            (QUEUED, 500, BOT, "bulk"),
            (OLDEST_JOB, 10, BOT, "interactive"),
            (OUTAGE, 0, BOT),
            (PAUSES, 0, BOT, "bot", "429"),
            (PAUSES, 0, BOT, "bot", "unauthorized"),
            (UNREAD, 0, BOT, "send"),
            (STORE_USED, 0.5),
            (RABBITMQ_ALARM, 0, "rabbit@a", "disk"),
            (DISK_FREE, 30e9, "rabbit@a"),
            (DISK_LIMIT, 1e9, "rabbit@a"),
            (CAMPAIGNS, 0, BOT, "stopped"),
        ):
            self.metrics.set(metric, value, *labels)

    def fail(self) -> None:
        """Sets a value for every alert that is about one."""
        self.metrics.set(PART_UP, 0, "rabbitmq")
        self.metrics.set(LIMIT_USED, 0.1, BOT)
        self.metrics.set(OLDEST_JOB, 400, BOT, "interactive")
        self.metrics.set(OUTAGE, 90, BOT)
        self.metrics.set(PAUSES, 1, BOT, "chat", "unauthorized")
        self.metrics.set(UNREAD, 3, BOT, "send")
        self.metrics.set(STORE_USED, 0.9)
        self.metrics.set(RABBITMQ_ALARM, 1, "rabbit@a", "disk")
        self.metrics.set(DISK_FREE, 0.9e9, "rabbit@a")
        self.metrics.set(CAMPAIGNS, 2, BOT, "stopped")
        self.metrics.count(TOO_MANY_REQUESTS, BOT, "chat", by=50)

    @contextmanager
    def serving(self) -> Iterator[str]:
        """Serves the metrics, and yields the host and port."""
        process = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:  # the standard library's
                self.send_response(200)
                self.end_headers()
                self.wfile.write(render(process.metrics))

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, name="metrics")
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


def at_once(folder: Path) -> Path:
    """The rules, but alerts fire without being held for minutes."""
    made = rules()
    for rule in made["groups"][0]["rules"]:
        rule["for"] = "0s"
    path = folder / "rules.yml"
    path.write_text(json.dumps(made))
    return path


OF_VALUES = {
    *("FloodgatePartAway", "FloodgateLimitUnused", "FloodgateOldestJobTooOld", "FloodgateTelegramDown"),
    *("FloodgateBotRefused", "FloodgateQueueUnread", "FloodgateStoreNearlyFull", "FloodgateCampaignStopped"),
    *("FloodgateRabbitMQAlarm", "FloodgateRabbitMQDiskLow"),
}


def test_a_real_prometheus_fires_and_clears_what_it_scrapes(tmp_path: Path) -> None:
    process = Process()
    with process.serving() as target, PrometheusServer(tmp_path, target, at_once(tmp_path)) as prometheus:
        until(lambda: prometheus.query("floodgate_up") and not prometheus.firing(), 60)
        process.fail()
        until(lambda: prometheus.firing().keys() >= {*OF_VALUES, "FloodgateTooManyRequests"}, 60)
        for summary in prometheus.firing().values():
            assert any(value in summary for value in (BOT, "rabbitmq", "90%", "rabbit@a"))
        process.calm()
        process.metrics.set(PAUSES, 0, BOT, "chat", "unauthorized")
        until(lambda: not prometheus.firing().keys() & OF_VALUES, 60)
        for query in panels():
            prometheus.query(query)  # an error of the query raises


def panels() -> Iterator[str]:
    """The queries of all panels, with Grafana's variables filled in."""
    for dashboard in dashboards().values():
        for panel in dashboard["panels"]:
            for target in panel.get("targets", ()):
                query: str = target["expr"]
                yield query.replace("$__rate_interval", "1m").replace("$bot", ".*")
