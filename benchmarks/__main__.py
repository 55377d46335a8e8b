"""``python -m benchmarks NAME [options]``. A benchmark is a module of this package with ``main(arguments) -> int``."""

from __future__ import annotations

import importlib
import pkgutil
import sys

import benchmarks


def names() -> list[str]:
    """Every module of the package itself; folders hold what benchmarks share."""
    found = pkgutil.iter_modules(benchmarks.__path__)
    return [module.name for module in found if not module.ispkg and not module.name.startswith("_")]


def main(arguments: list[str]) -> int:
    """Run the benchmark that is named first; 2 when there is none of that name."""
    name, *options = arguments or ["--help"]
    if name not in names():
        print("usage: python -m benchmarks NAME [options]\n", file=sys.stderr)
        for each in names():
            print(f"  {each:12} {_headline(each)}", file=sys.stderr)
        return 0 if name == "--help" else 2
    return int(importlib.import_module(f"benchmarks.{name}").main(options))


def _headline(name: str) -> str:
    return (importlib.import_module(f"benchmarks.{name}").__doc__ or "").partition("\n")[0]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
