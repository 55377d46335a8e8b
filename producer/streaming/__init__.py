"""Streams: a message that grows while its text is produced, as a language model does.

    options    the caller's options, checked
    plan       what there is to show, and what the chat shows already; pure
    turns      which stream updates its chat next, and how many at once; window: how many keep the bot busy
    calls      the jobs of a stream
    writer     one stream, as a task: plan, turn, job, wait for its end
    pipeline   what a stream needs of a client
    streams    the streams of one client
    message    what a program writes to, async and sync

See docs/streaming.md.
"""
