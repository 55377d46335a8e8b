"""Consumes messages: the Dramatiq broker, the runner of async actors, and a worker's background tasks."""
