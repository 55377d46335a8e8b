"""Dramatiq's own test_rabbitmq.py, on our broker."""

from __future__ import annotations

from tests.dramatiq_suite.upstream import taken_from

OF_STOCK = "is about the arguments of Dramatiq's RabbitmqBroker; ours has settings (tests/unit/test_addresses.py)"
BLOCKING = (
    "uses a blocking connection of its own thread; ours are private to it, and their losses are in "
    "tests/integration/test_faults.py and test_consumer.py"
)
PRIVATE = "replaces a private method; the same facts are in tests/integration/test_plain_actors.py"

globals().update(
    taken_from(
        "test_rabbitmq",
        does_not_apply={
            "test_rabbitmq_broker_can_be_passed_a_semicolon_separated_list_of_uris": OF_STOCK,
            "test_rabbitmq_broker_can_be_passed_a_list_of_uri_for_failover": OF_STOCK,
            "test_rabbitmq_broker_raises_an_error_if_given_invalid_parameter_combinations": OF_STOCK,
            "test_rabbitmq_broker_can_be_passed_a_list_of_parameters_for_failover": OF_STOCK,
            "test_rabbitmq_broker_connections_are_lazy": OF_STOCK,
            "test_ignore_scary_logs_filter_ignores_logs": "is about a filter of Dramatiq's own for pika's log",
            "test_rabbitmq_close_only_registers_ignore_filter_once": "is about the same filter",
            "test_rabbitmq_broker_stops_retrying_declaring_queues_when_max_attempts_reached": PRIVATE,
            "test_rabbitmq_broker_retries_declaring_queues_when_connection_related_errors_occur": PRIVATE,
            "test_rabbitmq_broker_reconnects_after_enqueue_failure": BLOCKING,
            "test_rabbitmq_workers_handle_rabbit_failures_gracefully": BLOCKING,
            "test_rabbitmq_connections_can_be_deleted_multiple_times": BLOCKING,
            "test_rabbitmq_channels_can_be_deleted_multiple_times": BLOCKING,
            "test_rabbitmq_broker_consuming_messages_re_declares_queues_when_declared_queue_disappears": BLOCKING,
            "test_rabbitmq_broker_enqueueing_message_re_declares_queues_when_declared_queue_disappears": BLOCKING,
            "test_rabbitmq_consumers_ignore_unknown_messages_in_ack_and_nack": (
                "gives a consumer a message by its tag; ours carry their delivery, which is settled once or not at all"
            ),
            "test_rabbitmq_broker_can_enqueue_messages_with_priority": (
                "expects ten levels; a quorum queue of RabbitMQ 4.0 has two (tests/integration/test_plain_actors.py)"
            ),
            "test_rabbitmq_messages_that_failed_to_decode_are_rejected": (
                "expects them among the queue's dead letters; ours are in dead.malformed "
                "(tests/integration/test_plain_actors.py)"
            ),
        },
    )
)
