"""What producers and workers agree on: jobs, queues, connections, admission.

Importing this package has no effect. Its packages are storeys; each imports only from those below it:

    worker                        takes messages out: the Dramatiq broker, the runner, middleware
    state                         stores: SQLite and Redis
    admission | amqp | uploads    the rules, RabbitMQ, files
    process                       event loop, stop signal, logs, outages
    settings
    messages                      jobs, updates, dead letters, queue names
    errors
"""
