"""``python -m deploy``, in the repository: makes the files for Prometheus, Grafana and Kubernetes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import yaml

from deploy.alerts import rules
from deploy.dashboards import dashboards
from deploy.kubernetes import rabbitmq_cluster, values_schema

FOLDER: Final = Path(__file__).parent
_HEAD: Final = "# Made by `python -m deploy` from deploy/alerts.py and the table of metrics.\n"


def files() -> Mapping[Path, str]:
    """The text of each file."""
    made = {FOLDER / "prometheus" / "alerts.yml": _HEAD + yaml.safe_dump(rules(), sort_keys=False, width=110)}
    chart = FOLDER / "helm"
    made[chart / "values.schema.json"] = values_schema(yaml.safe_load((chart / "values.yaml").read_text()))
    made[chart / "examples" / "rabbitmq-cluster.yaml"] = rabbitmq_cluster()
    for name, dashboard in dashboards().items():
        made[FOLDER / "grafana" / "dashboards" / name] = json.dumps(dashboard, indent=1) + "\n"
    return made


def main() -> None:
    """Write the files."""
    for path, text in files().items():
        path.write_text(text)


if __name__ == "__main__":
    main()
