"""Orders."""

from django.db import models


class Order(models.Model):
    """An order. The customer is identified by the chat with the shop's bot."""

    chat_id = models.BigIntegerField()
    placed_at = models.DateTimeField(auto_now_add=True)
