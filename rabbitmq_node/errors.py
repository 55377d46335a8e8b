"""What can go wrong on the way to a RabbitMQ.

RabbitMQSetupError
├── NoServerError         no way to a RabbitMQ 4 on this machine
├── InstallError    debootstrap or apt did not do its work
├── NodeError       the node did not come up, or went down meanwhile
└── CommandError    a rabbitmqctl command said no
"""


class RabbitMQSetupError(Exception):
    """Base of all; its text is one sentence for the person at the keyboard."""


class NoServerError(RabbitMQSetupError):
    """This machine has no RabbitMQ 4 and no way to get one by itself; the text names the ways out."""


class InstallError(RabbitMQSetupError):
    """An installer ended badly; the text carries the end of its log."""


class NodeError(RabbitMQSetupError):
    """The node is not there when it should be; the text carries the end of its log."""


class CommandError(RabbitMQSetupError):
    """`rabbitmqctl` refused; the text is its own."""
