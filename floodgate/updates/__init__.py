"""The parts of a handler worker: the user's module, its handler, and replies that go through the pipeline.

target      resolves ``module:name`` to an object
function    ``@on_update``: a plain function as a handler
replies     the request object of an Application's bot
stand_ins   results of sends that do not wait for Telegram
compose     puts them together
"""
