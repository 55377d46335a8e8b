"""State stores in SQLite or Redis: admission, results, handled updates and sessions."""
