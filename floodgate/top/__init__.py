"""``floodgate top``: the live picture in a terminal, with Textual.

The event loop only draws. The picture is read on one thread and what the operator does is done on another
(:mod:`floodgate.top.background`); both post messages to the loop. Neither is waited for at the end.
"""
