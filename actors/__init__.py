"""Consumes jobs from RabbitMQ and makes their calls: receive → admit → send → classify → settle.

Importing this package registers its actors with the process's broker
(:func:`floodgate.broker.worker.setup.current_broker`) and with no other. It opens no connection and starts no thread.
"""

from floodgate.actors.send import send

__all__ = ["send"]
