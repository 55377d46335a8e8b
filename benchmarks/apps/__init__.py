"""Bots that both editions run. Each module stands alone, for it is imported by its own name beside either edition."""
