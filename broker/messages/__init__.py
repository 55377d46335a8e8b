"""What travels through RabbitMQ, as values: jobs, updates, dead letters, and the queues that they belong in."""
