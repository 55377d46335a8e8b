"""Streams: a message that grows while its text is produced, as a language model does.

    options    the caller's options, checked
    text       the growing text, as messages that are valid in each state
    plan       what there is to show, and what the chat shows already; pure
    turns      which stream makes its next call, and how many at once; window: how many keep the bot busy
    calls      the jobs of a stream
    writer     one stream, as a task: plan, turn, job, wait for its end
    earlier    what an earlier stream with the same dedupe key has left
    notice     what remains of a stream whose program dies
    pipeline   what a stream needs of a client
    streams    the streams of one client
    message    what a program writes to, async and sync

See docs/streaming.md.
"""
