"""A process of ours: its event loop, its stop signal, its logs, and how it reports outages."""
