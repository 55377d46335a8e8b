"""Runs commands of ``floodgate`` as child processes: the parts of ``floodgate up``, and the processes of the demo."""
