"""A Celery worker with ``rate_limit="30/s"``, which Celery applies per worker: so there is one, with 8 processes.

Started by ``python -m celery -A benchmarks.peers.celery_rate_limit worker``. Sends through httpx, the HTTP library
below python-telegram-bot; a send that was answered 429 is retried after the wait it was told.
"""

from __future__ import annotations

import os
from typing import Any

import httpx
from celery import Celery  # type: ignore[import-untyped]

QUEUE = os.environ["BENCH_QUEUE"]

app = Celery("benchmark", broker=os.environ["BENCH_RABBITMQ_URL"])
app.conf.task_default_queue = QUEUE
app.conf.task_ignore_result = True
app.conf.broker_connection_retry_on_startup = True
app.conf.worker_hijack_root_logger = False
http = httpx.Client(timeout=60)


@app.task(bind=True, rate_limit="30/s", max_retries=None)  # type: ignore[untyped-decorator]
def send(self: Any, params: dict[str, object]) -> None:
    answer = http.post(f"{os.environ['BENCH_API_URL']}/bot{os.environ['BENCH_TOKEN']}/sendMessage", json=params)
    if answer.status_code == 429:
        raise self.retry(countdown=answer.json()["parameters"]["retry_after"])
