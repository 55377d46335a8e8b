"""RabbitMQ: connections, publishing and consuming, the topology, and reading queues."""
