"""A broadcast to every customer, in constant memory, which is sent when no interactive message waits."""

from typing import Any

from django.core.management.base import BaseCommand

from shop.messages import client
from shop.models import Order


class Command(BaseCommand):
    help = "Thank every customer for their orders."

    def handle(self, *_args: Any, **_options: Any) -> None:
        chats = Order.objects.values_list("chat_id", flat=True).distinct().iterator()
        count = client.enqueue_many(
            client.job("sendMessage", chat_id=chat, text="Thank you for shopping", priority="bulk") for chat in chats
        )
        self.stdout.write(f"Queued {count} reminders")
