"""The messages in RabbitMQ, as values: jobs, updates, dead letters, and the names of their queues."""
