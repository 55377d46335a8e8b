"""Measurements, each beside its peers in one run: ``python -m benchmarks NAME [options]``.

One module here is one benchmark; what they share is in ``stage`` (processes, servers, reports) and ``peers`` (what
others do with the same load). Everything runs as a process of its own, started by the command a user would type. The
machine's figures differ from yours: read the ratios.
"""
