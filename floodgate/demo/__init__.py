"""``floodgate demo``: a realistic load against the local Bot API, shown live, and accounted for job by job."""
