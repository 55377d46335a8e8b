"""python-telegram-bot's own example bots as modules that a worker can load. Only the lines that start them change."""

from __future__ import annotations

import os
from pathlib import Path

from tests.acceptance.stage import TOKEN
from tests.processes import ROOT

# Replacements in the source. Each occurs in a bot exactly once.
START_UP = (
    ('.token("TOKEN")', f'.token("{TOKEN}")'),
    ("    application.run_polling(allowed_updates=Update.ALL_TYPES)\n", "    return application\n"),
    ('if __name__ == "__main__":\n    main()\n', "application = main()\n"),
)


def write_example(name: str, home: Path) -> str:
    """Puts an example into a folder. Returns the target that a worker loads."""
    source = _folder() / f"{name}.py"
    assert source.exists(), f"{source} is missing: scripts/setup --tests fetches it"
    text = source.read_text()
    for said, instead in START_UP:
        assert text.count(said) == 1, f"{name} does not start by {said!r}"
        text = text.replace(said, instead)
    (home / f"{name}.py").write_text(text)
    return f"{name}:application"


def _folder() -> Path:
    return Path(os.environ.get("FLOODGATE_PTB_EXAMPLES", ROOT / ".cache" / "ptb-examples"))
