"""``floodgate demo``: sends a realistic load to the local Bot API, shows it live, and accounts for every job."""
