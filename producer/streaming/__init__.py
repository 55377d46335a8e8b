"""Streams: texts that are sent while they grow, such as the answers of language models."""
