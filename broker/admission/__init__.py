"""Admission: the decision to send now or later, shared by all workers through a state store."""
