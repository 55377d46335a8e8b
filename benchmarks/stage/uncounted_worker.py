"""A worker that counts nothing, to compare with: ``python -m benchmarks.stage.uncounted_worker``."""

from __future__ import annotations


def main() -> None:
    """Run what ``floodgate worker`` runs."""
    from floodgate.broker.process.metrics import Metrics
    from floodgate.commands.worker import worker

    for name in ("count", "observe", "set"):
        setattr(Metrics, name, _nothing)
    worker()


def _nothing(*_given: object, **_more: object) -> None:
    pass


if __name__ == "__main__":
    main()
