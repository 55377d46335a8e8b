"""Celery tasks that send messages.

    FLOODGATE_RABBITMQ_URL=… celery --workdir examples --app celery_tasks worker

Celery forks its workers from this process. Creating the client here opens nothing; each worker process opens its own
connection at its first message.
"""

import os

from celery import Celery

from floodgate import Client, RabbitMQError

app = Celery("shop", broker=os.environ.get("CELERY_BROKER_URL", "memory://"))
client = Client()


@app.task(bind=True, autoretry_for=(RabbitMQError,), retry_backoff=True, max_retries=5)
def announce(self, chat_id: int, text: str) -> str:  # type: ignore[no-untyped-def]  # Celery's self
    """Send a message. Celery may run a task twice; the task's id as the key prevents a second message."""
    job = client.send_message(chat_id, text, dedupe_key=f"celery-{self.request.id}")
    return job.id
