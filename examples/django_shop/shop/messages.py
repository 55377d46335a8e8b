"""Messages to customers. All code shares one client; each process, forked or not, connects at its first message."""

from floodgate import Client

client = Client()


def order_placed(order_id: int, chat_id: int) -> None:
    # With this key, an order is announced only once, however often the function is called.
    client.send_message(chat_id, f"Order {order_id} is placed", dedupe_key=f"order-{order_id}-placed")
