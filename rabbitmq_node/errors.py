"""The errors of finding, installing and running a RabbitMQ.

RabbitMQSetupError
├── NoServerError   this machine has no RabbitMQ 4, and none can be installed
├── InstallError    debootstrap or apt failed
├── NodeError       the node did not start, is not running, or cannot do what was asked
└── CommandError    a rabbitmqctl or docker command failed
"""


class RabbitMQSetupError(Exception):
    """Base class of these errors. The message is one sentence for the user."""


class NoServerError(RabbitMQSetupError):
    """This machine has no RabbitMQ 4, and none can be installed. The message says what to do."""


class InstallError(RabbitMQSetupError):
    """An installer failed. The message contains the end of its log."""


class NodeError(RabbitMQSetupError):
    """The node is not running when it should be. If it failed to start, the message contains the end of its log."""


class CommandError(RabbitMQSetupError):
    """A command of the server's tools failed. The message is the tool's own."""
