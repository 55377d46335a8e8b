"""The receiver: takes the bots' updates from Telegram and publishes them to RabbitMQ. An update is acknowledged to
Telegram, by the offset of the next poll or by a webhook's 200, only after RabbitMQ has confirmed it.

telegram        the Bot API calls that receiving needs
intake          publishes updates to RabbitMQ
leadership      elects the active one of several receivers
polling         polls getUpdates while this receiver is the active one
webhook         accepts Telegram's webhook requests
outage_backoff  retries with a growing pause, and logs outages
process         the process
"""
