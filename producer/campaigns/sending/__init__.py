"""Sends campaigns: the process, the leader of each campaign, its schedule, rules, outcomes and progress."""
