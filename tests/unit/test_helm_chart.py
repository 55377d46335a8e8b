"""The Helm chart: rendered by Helm, checked against the schemas of Kubernetes and KEDA, and against the settings."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT4

from deploy.__main__ import FOLDER
from floodgate.broker.process.metrics import TABLE, ProcessRole
from floodgate.broker.settings.environment import fields
from floodgate.broker.settings.model import Settings
from floodgate.supervision.parts import PARTS
from tests.processes import ROOT

CHART = FOLDER / "helm"
TOOLS = ROOT / ".cache" / "helm"
SCHEMAS = TOOLS / "schemas"
NEEDED = ("image.repository=example.org/floodgate",)
EVERYTHING = (
    *NEEDED,
    *("handlers.enabled=true", "handlers.application=shop.bot:application", "handlers.image.repository=shop"),
    *("updates.enabled=true", "updates.mode=webhook", "campaigns.enabled=true", "secrets.gateway=keys"),
    *("web.enabled=true", "web.url=https://floodgate.example.org", "workers.autoscaling.enabled=true"),
)
ROLES = ("worker", "handlers", "updates", "gateway", "campaigns", "web", "metrics")
Resources = dict[tuple[str, str], dict[str, Any]]


def helm(*arguments: str, values: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    command = [TOOLS / "helm", *arguments, *(argument for value in values for argument in ("--set", value))]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@cache
def rendered(*values: str) -> Resources:
    """What Helm makes of the chart, by kind and name."""
    done = helm("template", "tg", str(CHART), "--namespace", "bots", values=values)
    assert done.returncode == 0, done.stderr
    found = [document for document in yaml.safe_load_all(done.stdout) if document is not None]
    return {(document["kind"], document["metadata"]["name"]): document for document in found}


def refused(*values: str) -> str:
    """What Helm says of values that it refuses."""
    done = helm("template", "tg", str(CHART), values=values)
    assert done.returncode != 0
    return done.stderr


def of_kind(resources: Resources, kind: str) -> dict[str, dict[str, Any]]:
    return {name: resource for (its_kind, name), resource in resources.items() if its_kind == kind}


def pods(resources: Resources) -> Iterator[tuple[str, dict[str, Any]]]:
    """The pod of each Deployment and Job, by name."""
    for (kind, name), resource in resources.items():
        if kind in ("Deployment", "Job"):
            yield name, resource["spec"]["template"]["spec"]


def variables(container: dict[str, Any]) -> dict[str, str]:
    return {variable["name"]: variable["value"] for variable in container.get("env", ())}


def schema_of(resource: dict[str, Any]) -> dict[str, Any]:
    version = resource["apiVersion"].removesuffix(".k8s.io").split("/")
    group = "-".join([version[0].split(".")[0], *version[1:]])
    schema: dict[str, Any] = json.loads((SCHEMAS / f"{resource['kind'].lower()}-{group}.json").read_text())
    return schema


def definitions() -> Registry[Any]:
    def retrieve(uri: str) -> Resource[Any]:
        return Resource.from_contents(json.loads((SCHEMAS / Path(uri).name).read_text()), DRAFT4)

    return Registry(retrieve=retrieve)  # type: ignore[call-arg]


@pytest.mark.parametrize("values", [NEEDED, EVERYTHING], ids=["defaults", "everything"])
def test_kubernetes_accepts_every_resource(values: tuple[str, ...]) -> None:
    resources, registry = rendered(*values), definitions()
    for (kind, name), resource in resources.items():
        if kind == "ScaledObject":
            continue
        objections = jsonschema.Draft4Validator(schema_of(resource), registry=registry).iter_errors(resource)
        assert [f"{objection.json_path}: {objection.message}" for objection in objections] == [], (kind, name)


def test_a_misspelt_field_would_be_noticed() -> None:
    [deployment] = of_kind(rendered(*NEEDED, "gateway.enabled=false", "metrics.enabled=false"), "Deployment").values()
    wrong = json.loads(json.dumps(deployment).replace("terminationGracePeriodSeconds", "terminationGraceSeconds"))
    assert not jsonschema.Draft4Validator(schema_of(wrong), registry=definitions()).is_valid(wrong)


def test_keda_accepts_the_scaling_of_workers() -> None:
    scaled = list(of_kind(rendered(*EVERYTHING), "ScaledObject").values())
    assert validated(scaled) == ""
    scaled[0] = json.loads(json.dumps(scaled[0]).replace('"minReplicaCount": 1', '"minReplicaCount": "one"'))
    assert "minReplicaCount must be integer" in validated(scaled)


def validated(scaled: list[dict[str, Any]]) -> str:
    """KEDA's objection, or nothing."""
    command = ["node", TOOLS / "validate.mjs"]
    return subprocess.run(command, input=json.dumps(scaled), capture_output=True, text=True, timeout=60).stderr


def test_workers_are_scaled_by_the_calls_they_need_in_flight_as_the_exporter_serves_them() -> None:
    resources = rendered(*EVERYTHING)
    [scaled] = of_kind(resources, "ScaledObject").values()
    [trigger] = scaled["spec"]["triggers"]
    [metric] = [row for row in TABLE if row.name == trigger["metadata"]["valueLocation"]]
    assert (metric.roles, dict(metric.labels)) == ((ProcessRole.EXPORTER,), {}), "KEDA reads a metric without labels"
    service = resources["Service", "tg-metrics"]
    assert trigger["metadata"]["url"] == f"http://tg-metrics.bots.svc:{service['spec']['ports'][0]['port']}/metrics"
    assert scaled["spec"]["scaleTargetRef"]["name"] == "tg-worker"
    assert "replicas" not in resources["Deployment", "tg-worker"]["spec"], "an upgrade would undo the scaling"


def test_each_role_has_its_deployment_and_those_that_are_asked_for_have_a_service() -> None:
    assert set(of_kind(rendered(*EVERYTHING), "Deployment")) == {f"tg-{role}" for role in ROLES}
    assert set(of_kind(rendered(*EVERYTHING), "Service")) == {"tg-gateway", "tg-updates", "tg-web", "tg-metrics"}
    assert set(of_kind(rendered(*NEEDED), "Deployment")) == {"tg-worker", "tg-gateway", "tg-metrics"}


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.name)
def test_a_pod_is_not_killed_before_its_process_ends_by_itself(part: Any) -> None:
    values = (*EVERYTHING, "workers.shutdownSeconds=100", "gateway.drainSeconds=70")
    pod = dict(pods(rendered(*values)))[f"tg-{part.name}"]
    [container] = pod["containers"]
    configured = Settings(_env_file=None).model_copy(update={"shutdown_seconds": 100.0})
    configured = configured.model_copy(update={"gateway": configured.gateway.model_copy(update={"drain_seconds": 70})})
    before = container.get("lifecycle", {}).get("preStop", {}).get("exec", {"command": ["sleep", 0]})["command"][1]
    assert pod["terminationGracePeriodSeconds"] >= part.stop_seconds(configured) + int(before)
    assert (int(before) > 0) == (part.name in ("gateway", "updates", "web")), "callers learn first that it is going"


def test_the_variables_are_settings_and_none_of_them_is_a_secret() -> None:
    known = dict(fields(Settings))
    secret = {name for name, setting in known.items() if "SecretStr" in str(setting.annotation)}
    assert "FLOODGATE_RABBITMQ_URL" in secret
    for name, pod in pods(rendered(*EVERYTHING)):
        for container in pod["containers"]:
            given = variables(container)
            assert given.keys() <= known.keys() - secret, name
    for variable in sorted(secret | {"FLOODGATE_WEB__TOKENS"}):
        assert "put it into a Secret" in refused(*NEEDED, f"settings.{variable}=x")


def test_every_pod_is_confined() -> None:
    for name, pod in pods(rendered(*EVERYTHING)):
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["automountServiceAccountToken"] is False, name
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["limits"]["memory"], name
            assert container["resources"]["requests"], name


def test_nothing_but_what_a_policy_names_reaches_a_pod() -> None:
    policies = of_kind(rendered(*EVERYTHING), "NetworkPolicy")
    everywhere = policies["tg-all"]["spec"]
    assert everywhere["policyTypes"] == ["Ingress", "Egress"]
    assert "app.kubernetes.io/component" not in everywhere["podSelector"]["matchLabels"], "all pods of the release"
    opened = {
        name: [port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]]
        for name, policy in policies.items()
    }
    assert opened == {"tg-all": [9464, 9465], "tg-gateway": [8080], "tg-updates": [8443], "tg-web": [8090]}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ((), "image.repository is required"),
        ((*NEEDED, "workers.replica=3"), "additional properties 'replica' not allowed"),
        ((*NEEDED, "workers.replicas=many"), "got string, want integer"),
        ((*NEEDED, "handlers.enabled=true"), "handlers.application is required"),
        ((*NEEDED, "handlers.enabled=true", "handlers.application=a:b"), "handlers.image.repository is required"),
        ((*NEEDED, "web.enabled=true"), "web.url is required"),
        ((*NEEDED, "workers.autoscaling.enabled=true", "metrics.enabled=false"), "needs metrics.enabled"),
    ],
)
def test_wrong_values_get_one_clear_error(values: tuple[str, ...], said: str) -> None:
    assert said in refused(*values)


def test_the_example_cluster_has_the_settings_of_every_other_rabbitmq() -> None:
    [definitions_map, cluster] = yaml.safe_load_all((CHART / "examples" / "rabbitmq-cluster.yaml").read_text())
    assert cluster["spec"]["replicas"] == 3
    given = cluster["spec"]["rabbitmq"]["additionalConfig"].splitlines()
    wanted = (ROOT / "rabbitmq" / "rabbitmq.conf").read_text().splitlines()
    assert given == [line for line in wanted if line and not line.startswith("#")]
    assert json.loads(definitions_map["data"]["floodgate.json"])["policies"]


def test_helm_finds_no_fault() -> None:
    done = helm("lint", "--strict", str(CHART), values=NEEDED)
    assert done.returncode == 0, done.stdout
