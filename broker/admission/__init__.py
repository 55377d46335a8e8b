"""Admission: the decision to send now or later. Pure: no store, no clock, no network. Stores are in ``state``."""
