"""One message in hand for each thread of a worker."""

from __future__ import annotations

import dramatiq.worker
from dramatiq.broker import Broker
from dramatiq.middleware import Middleware


class PrefetchPerThread(Middleware):
    """Has a worker take as many messages of each plain queue as it has threads, unless it was told a number.

    Dramatiq's own default is two for each thread: the second waits here while another worker is idle.
    """

    def before_worker_boot(self, broker: Broker, worker: dramatiq.worker.Worker) -> None:
        if not dramatiq.worker.QUEUE_PREFETCH and worker.queue_prefetch == 2 * worker.worker_threads:
            worker.queue_prefetch = worker.worker_threads
