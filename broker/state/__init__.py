"""Where state is kept: the stores of admission, results, handled updates and sessions, in SQLite or Redis."""
