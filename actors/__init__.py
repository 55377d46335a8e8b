"""Takes jobs out of RabbitMQ and makes the calls: receive → admit → send → classify → settle.

Importing this package registers its actors with the process's broker
(:func:`floodgate.broker.worker.setup.current_broker`), and with no other: no connection is opened and no thread
started.
"""

from floodgate.actors.send import send

__all__ = ["send"]
