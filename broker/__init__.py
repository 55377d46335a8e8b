"""The contract between producers and workers: jobs, queues, connections, admission.

Importing this package has no side effects. Its packages are layers; each imports only from those below it:

    worker                        takes messages out: the Dramatiq broker, the runner, middleware
    state                         stores: SQLite and Redis
    admission | amqp | uploads    the rules, RabbitMQ, files
    process                       event loop, stop signal, logs, outages
    settings
    messages                      jobs, updates, dead letters, queue names
    errors
"""
