"""Settings: the model, its parts, and its reference pages."""
