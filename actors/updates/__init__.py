"""Consumes updates from RabbitMQ and runs their handlers: handled before? → handle, in order, with retries → record →
ack.

run                  one call of the handlers for one update, and its context
handler              the protocol for the user's code: an Application, or a function
lanes                runs each chat's updates in order, and different chats concurrently
handling             takes an update from its delivery to its ack
application          a python-telegram-bot Application as a handler
handled_types        finds the types of updates that an Application needs
callback_data        shares the data of buttons with all workers
conversations        loads an Application's conversations when they are needed
persistence_flusher  writes an Application's persistence before the ack
loop                 the event loop that handlers run on
watch                names a handler that blocks the event loop
actor                the Dramatiq actor, registered on import
"""
