"""What a viewer can do: each action says what it will touch before it acts, and then what it did.

A link or a form leads to ``GET /actions/<action>?…``, which changes nothing and asks for confirmation; its form POSTs
the same fields back. The POST counts again: if the action would touch more than the viewer has confirmed, it asks once
more.
"""
