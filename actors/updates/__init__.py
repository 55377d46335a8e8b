"""Takes updates out of RabbitMQ and has them handled: seen before? → handle, in order, a few times → note it → ack.

run            one call of the handlers for one update, and what may be asked about it meanwhile
handler        what the user gives: an Application, or a function
lanes          a chat's updates in order, chats side by side
handling       what happens to an update from its delivery to its ack
application    a python-telegram-bot Application as a handler
keeping        an Application's persistence, written before the ack
loop           the event loop that handlers run on
watch          a handler that keeps the event loop to itself is told by name
actor          the Dramatiq actor; importing it registers it
"""
