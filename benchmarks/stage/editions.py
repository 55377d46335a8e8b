"""Which Floodgate runs: the one in this tree, or the former one, as it stood before its worker was rewritten.

The former one lives in ``.cache/former`` with an environment of its own (``scripts/setup --bench``). Both run by the
same commands on queues of the same names and form, so one client fills both.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks.stage.programs import ROOT, Program

APPS: Final = ROOT / "benchmarks" / "apps"


@dataclass(frozen=True, slots=True)
class Edition:
    """A Floodgate and the Python that runs it.

    ``settings`` are its defaults where those of this tree may differ and all processes must agree.
    """

    name: str
    root: Path
    interpreter: Path
    settings: Mapping[str, Any] = field(default_factory=dict)

    def command(self, arguments: Sequence[str], env: Mapping[str, str], log: Path, ready_word: str) -> Program:
        """``floodgate ARGUMENTS`` of this edition, not yet started. It can import what is in ``benchmarks/apps``."""
        own = {**env, "PYTHONPATH": f"{self.root}:{APPS}"}
        return Program(["-m", "floodgate", *arguments], own, log, ready_word, str(self.interpreter))

    def worker(self, env: Mapping[str, str], log: Path) -> Program:
        return self.command(["worker"], env, log, "worker ready")

    def handler_worker(self, target: str, env: Mapping[str, str], log: Path) -> Program:
        return self.command(["worker", "--updates", target], env, log, "worker ready")

    def receiver(self, env: Mapping[str, str], log: Path) -> Program:
        return self.command(["updates"], env, log, "receiver ready")

    def gateway(self, env: Mapping[str, str], log: Path) -> Program:
        return self.command(["gateway"], env, log, "is ready at")

    @property
    def installed(self) -> bool:
        return self.interpreter.exists()


CURRENT: Final = Edition("floodgate", ROOT, Path(sys.executable))
_FORMER_ROOT: Final = ROOT / ".cache" / "former"
FORMER: Final = Edition(
    "former", _FORMER_ROOT, _FORMER_ROOT / ".venv" / "bin" / "python", {"partitions": 32, "update_partitions": 16}
)


def editions() -> tuple[Edition, ...]:
    """Both, or this tree's alone and a sentence that says so."""
    if FORMER.installed:
        return (CURRENT, FORMER)
    print("The former worker is not installed here: scripts/setup --bench does that", file=sys.stderr)
    return (CURRENT,)
