"""What producers and workers agree on: jobs, queues, connections, admission.

Importing this package has no effect. Read it along a message's path: ``job`` → ``partitions`` → ``topology`` →
``publisher`` → ``consumer`` → ``middleware`` → ``admission``.
"""
