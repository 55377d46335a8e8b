"""Stores on Redis or Valkey, shared by many machines."""
