"""Dramatiq middleware of ours."""
