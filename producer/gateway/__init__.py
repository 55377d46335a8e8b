"""The gateway: the Bot API over HTTP, flood-safe. Point a Telegram library's base URL at it and keep the code.

treatment    what becomes of each method: queued, passed through, refused
callers      who may call, and as which bot
reading      a request to parameters, within bounds
options      X-Floodgate-… headers and floodgate_… parameters to what a job is
answers      everything the gateway says, in Telegram's own JSON
sending      a call to a job to Telegram's result
waiting      thousands of callers, one listener
backlog      how long the queues are, and when to say stop
passing      reads and files, straight to Telegram
app, server  routes and the process
"""
