"""Messages to customers. One client for all: a process opens its connection at its first message, forked or not."""

from floodgate import Client

client = Client()


def order_placed(order_id: int, chat_id: int) -> None:
    # Under one key, so that an order is announced once, however often this is called.
    client.send_message(chat_id, f"Order {order_id} is placed", dedupe_key=f"order-{order_id}-placed")
