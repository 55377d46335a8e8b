"""Prefetches one message per worker thread."""

from __future__ import annotations

import dramatiq.worker
from dramatiq.broker import Broker
from dramatiq.middleware import Middleware


class PrefetchPerThread(Middleware):
    """Sets the prefetch count of plain queues to the number of worker threads, unless one is configured.

    Dramatiq's default is two per thread: the second message would wait here while another worker is idle.
    """

    def before_worker_boot(self, broker: Broker, worker: dramatiq.worker.Worker) -> None:
        if not dramatiq.worker.QUEUE_PREFETCH and worker.queue_prefetch == 2 * worker.worker_threads:
            worker.queue_prefetch = worker.worker_threads
