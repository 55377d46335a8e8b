"""What a handler worker is put together from: the user's module, its handler, and replies that go through the pipeline.

target      ``module:name`` to what is meant by it
function    ``@on_update``: a plain function as a handler
replies     the request that an Application's bot is given
stand_ins   what a send returns that does not wait for Telegram
compose     all of it
"""
