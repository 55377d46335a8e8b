"""A RabbitMQ 4 for whoever has none: found or installed, started on ports of its own, stopped without a trace.

Reading order: `choice` decides which RabbitMQ will do, from plain facts; `facts` looks them up; `debootstrap`
installs one into a cache folder; `server` is a RabbitMQ on disk and `compose` one in a container, two engines under
one `node`, which is what everybody else uses: `scripts/rabbitmq` for a node that stays, the tests for nodes that come
and go.

Standard library only: `scripts/rabbitmq` runs before there is a virtual environment.
"""
