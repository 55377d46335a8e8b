"""State stores for admission, results, handled updates and sessions, in SQLite or Redis."""
