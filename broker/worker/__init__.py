"""Takes messages out: the Dramatiq broker, the runner of async actors, and what a worker does besides."""
