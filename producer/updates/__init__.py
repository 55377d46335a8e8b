"""The receiver: takes the bots' updates in and puts them into RabbitMQ. Telegram is told that an update is safe, by the
offset of the next poll or by a webhook's 200, only after RabbitMQ has said so.

telegram     the calls that receiving needs
intake       from what Telegram gave to what RabbitMQ has confirmed
leadership   which of several receivers is the active one
polling      getUpdates, as long as we are the active one
webhook      Telegram's posts
process      the process
"""
