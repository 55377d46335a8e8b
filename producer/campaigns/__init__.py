"""Campaigns: one message to very many chats, with a record of what became of each.

A campaign has content (a template), a frozen audience, a schedule, rules and a state. The files, in the order in which
a campaign meets them: ``definition`` (from TOML), ``audience`` (from CSV, JSON Lines or an iterable), ``templates``
(renders the content for one recipient), ``checks`` (renders it for all, before the start), ``store`` (keeps everything
in SQL), ``schedule`` and ``rules`` (when to send, when to stop), ``leader`` (sends one campaign), ``process`` (runs the
leaders).
"""
