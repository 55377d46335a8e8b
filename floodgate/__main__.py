"""The ``floodgate`` command, which names the extra to install if a package is missing."""

from __future__ import annotations

import sys
from typing import Final

# The extra of each command; all others need cli.
_EXTRAS: Final = {
    "worker": "worker",
    "gateway": "gateway",
    "updates": "gateway",
    "fake-telegram": "fake",
    "campaigns": "campaigns",
    "web": "web",
    "demo": "all",
    "top": "top",
    "up": "all",
}
EXIT_USAGE: Final = 2


def main() -> None:
    """Run the command line, which imports what the command needs and no more."""
    try:
        from floodgate.cli import main as run

        run()
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "floodgate", *sys.stdlib_module_names):
            raise
        extra = _EXTRAS.get(next((word for word in sys.argv[1:] if not word.startswith("-")), ""), "cli")
        print(
            f"This command needs {package}, which is not installed: pip install 'telegram-floodgate[{extra}]'.",
            file=sys.stderr,
        )
        sys.exit(EXIT_USAGE)


if __name__ == "__main__":
    main()
