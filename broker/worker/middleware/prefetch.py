"""Limits a worker's prefetch to one message per thread."""

from __future__ import annotations

import dramatiq.worker
from dramatiq.broker import Broker
from dramatiq.middleware import Middleware


class PrefetchPerThread(Middleware):
    """Makes a worker prefetch as many messages of each plain queue as it has threads, unless a number was configured.

    Dramatiq's own default is two per thread: the second would wait here while another worker is idle.
    """

    def before_worker_boot(self, broker: Broker, worker: dramatiq.worker.Worker) -> None:
        if not dramatiq.worker.QUEUE_PREFETCH and worker.queue_prefetch == 2 * worker.worker_threads:
            worker.queue_prefetch = worker.worker_threads
