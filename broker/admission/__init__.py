"""Admission: decides whether a job may be sent now. Pure: no store, no clock, no network. Stores are in ``state``."""
