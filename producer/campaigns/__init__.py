"""Campaigns: one message to very many chats, with a record of what became of each.

A campaign has content (a template), a frozen audience, a schedule, rules and a state. The packages' files, in the order
in which a campaign meets them: ``definition`` (what it is to send, from TOML), ``audience`` (who is to get it, from CSV,
JSON Lines, SQL or an iterable), ``templates`` (renders it for one recipient), ``checks`` (renders it for all, before the
start), ``states``, ``tables`` and ``store`` (what is kept in SQL).
"""
