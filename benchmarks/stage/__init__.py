"""Where benchmarks play: processes, servers and reports."""
