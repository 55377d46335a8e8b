"""What the loss of a server costs: rows of ``python -m benchmarks faults``, and what they share.

A row is a :class:`~benchmarks.failures.row.Failure`: it opens servers, breaks one of them while two workers send what
a client enqueues, and says which figures are allowed. To add a row, write one in the module of what fails (``cluster``
for RabbitMQ) and list it in that module's ``ROWS``; a new module also has ``stop`` for what its rows share, and goes
into ``MODULES`` of ``benchmarks/faults.py``. Load, measuring and reporting are in ``play``, the same for all rows.
"""
