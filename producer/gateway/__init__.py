"""The gateway: the Bot API over HTTP, flood-safe. Point a Telegram library's base URL at it and keep the code.

routes           the route of each method: queued, passed through or refused
callers          authenticates callers and finds their bot
request_body     reads a request's parameters and files, within bounds
request_options  reads X-Floodgate-… headers and floodgate_… parameters
placeholders     makes the results of calls whose callers do not wait
answers          every answer of the gateway, in Telegram's own JSON
sending          turns a call into a job, and its result into an answer
backlog          counts queued jobs and refuses more when there are too many
files            writes uploads to the spool
proxy            passes reads and files on to Telegram
reachability     learns from getUpdates which chats can be reached
jobs             the job API
state            the state that the routes share
app, server      the ASGI application and the process
page             generates the table in docs/gateway.md
"""
