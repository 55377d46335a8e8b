"""Dramatiq's own test_broker.py, on our broker."""

from __future__ import annotations

from tests.dramatiq_suite.upstream import taken_from

OF_STOCK = "is about the constructor of Dramatiq's RabbitmqBroker, or when it is the default"

globals().update(
    taken_from(
        "test_broker",
        does_not_apply={
            "test_broker_uses_rabbitmq_if_not_set": OF_STOCK,
            "test_can_instantiate_brokers_without_middleware": OF_STOCK,
        },
    )
)
