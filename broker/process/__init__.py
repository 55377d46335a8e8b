"""The parts of every Floodgate process: event loop, stop signal, logs, and outage reports."""
