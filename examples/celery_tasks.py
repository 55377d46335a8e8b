"""Celery tasks that send.

    FLOODGATE_RABBITMQ_URL=… celery --workdir examples --app celery_tasks worker

Celery forks its workers from this process. The client is made here and opens nothing; each worker process opens its own
connection at its first message.
"""

import os

from celery import Celery

from floodgate import Client, RabbitMQError

app = Celery("shop", broker=os.environ.get("CELERY_BROKER_URL", "memory://"))
client = Client()


@app.task(bind=True, autoretry_for=(RabbitMQError,), retry_backoff=True, max_retries=5)
def announce(self, chat_id: int, text: str) -> str:  # type: ignore[no-untyped-def]  # Celery's self
    """Safe to run twice, as Celery may: the task's id is the key."""
    job = client.send_message(chat_id, text, dedupe_key=f"celery-{self.request.id}")
    return job.id
