"""The sub-commands of ``floodgate``."""
