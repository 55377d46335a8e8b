"""Floodgate's Dramatiq middleware."""
