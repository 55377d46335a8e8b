"""The worker's side: the Dramatiq broker, the runner of async actors, middleware, and retention of dead letters."""
