"""Find, show, replay and drop dead letters."""
