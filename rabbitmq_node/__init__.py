"""Runs a private RabbitMQ 4 for trying and testing: finds or installs one, starts it on its own ports, and stops it
without leaving anything behind.

Reading order: `choice` decides which RabbitMQ to use, from plain facts; `facts` looks them up; `debootstrap` installs
one into a cache folder; `local` runs a RabbitMQ on disk (`server`) and `compose` one in a container, two engines behind
one `node`. Everything else uses `node`: `scripts/rabbitmq` for a node that keeps running, the tests for temporary ones,
and `cluster` for several that form one, each in a `network` of its own, which `scripts/cluster` runs.

Uses the standard library only, because `scripts/rabbitmq` runs before there is a virtual environment.
"""
