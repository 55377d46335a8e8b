"""What of the Helm chart follows from other files: the schema of its values, and the example of a RabbitMQ cluster."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import yaml

_ROOT: Final = Path(__file__).parent.parent
_RABBITMQ: Final = _ROOT / "rabbitmq"
_DEFINITIONS: Final = "/etc/floodgate/definitions"  # as in rabbitmq.conf
# Values whose keys the chart passes on.
_FREE: Final = frozenset({"settings", "resources", "podAnnotations", "nodeSelector"})
_TYPES: Final = {bool: "boolean", int: "integer", str: "string", list: "array"}
_CLUSTER: Final = "floodgate-rabbitmq"
_EXAMPLE_HEAD: Final = """\
# Made by `python -m deploy` from the files in rabbitmq/. A RabbitMQ of three nodes, by RabbitMQ's cluster operator,
# which must be installed. The accounts of workers, producers and operators come from a Secret: see docs/kubernetes.md.
#
#   kubectl create secret generic floodgate-rabbitmq-accounts --from-file=accounts.json
#   kubectl apply -f rabbitmq-cluster.yaml
#
"""


class _Text(str):
    """Text that YAML writes as a block."""


class _Dumper(yaml.SafeDumper):
    """Writes :class:`_Text` as a block."""


_Dumper.add_representer(_Text, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|"))


def values_schema(values: dict[str, Any]) -> str:
    """Return the JSON Schema of the chart's values: the keys and types of the defaults. Other keys are refused."""
    schema = {"$schema": "https://json-schema.org/draft-07/schema#"} | _schema_of(values)
    schema["properties"]["global"] = {"type": "object"}  # Helm adds it if the chart is part of another
    return json.dumps(schema, indent=1) + "\n"


def _schema_of(values: dict[str, Any]) -> dict[str, Any]:
    properties = {
        key: {"type": "object"}
        if key in _FREE
        else _schema_of(value)
        if isinstance(value, dict)
        else {"type": _TYPES[type(value)]}
        for key, value in values.items()
    }
    return {"type": "object", "additionalProperties": False, "properties": properties}


def rabbitmq_cluster() -> str:
    """Return the example: the operator's resource, and a ConfigMap with the definitions."""
    resources = [_definitions(), _cluster()]
    return _EXAMPLE_HEAD + yaml.dump_all(resources, Dumper=_Dumper, sort_keys=False, width=110)


def _definitions() -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": f"{_CLUSTER}-definitions"},
        "data": {"floodgate.json": _Text((_RABBITMQ / "definitions.json").read_text())},
    }


def _cluster() -> dict[str, Any]:
    return {
        "apiVersion": "rabbitmq.com/v1beta1",
        "kind": "RabbitmqCluster",
        "metadata": {"name": _CLUSTER},
        "spec": {
            "replicas": 3,
            "persistence": {"storage": "20Gi"},
            "resources": {"requests": {"cpu": "1", "memory": "2Gi"}, "limits": {"memory": "2Gi"}},
            "rabbitmq": {
                "additionalConfig": _Text(_lines_without_remarks("rabbitmq.conf", "#")),
                "advancedConfig": _Text(_lines_without_remarks("advanced.config", "%")),
            },
            "override": {"statefulSet": {"spec": {"template": {"spec": _pod()}}}},
        },
    }


def _pod() -> dict[str, Any]:
    mounts = [
        {"name": "definitions", "mountPath": f"{_DEFINITIONS}/10-floodgate.json", "subPath": "floodgate.json"},
        {"name": "accounts", "mountPath": f"{_DEFINITIONS}/20-accounts.json", "subPath": "accounts.json"},
    ]
    spread = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app.kubernetes.io/name": _CLUSTER}},
    }
    return {
        "topologySpreadConstraints": [spread],
        "containers": [{"name": "rabbitmq", "volumeMounts": mounts}],
        "volumes": [
            {"name": "definitions", "configMap": {"name": f"{_CLUSTER}-definitions"}},
            {"name": "accounts", "secret": {"secretName": f"{_CLUSTER}-accounts"}},
        ],
    }


def _lines_without_remarks(name: str, mark: str) -> str:
    lines = (_RABBITMQ / name).read_text().splitlines()
    return "".join(f"{line}\n" for line in lines if line.strip() and not line.startswith(mark))
