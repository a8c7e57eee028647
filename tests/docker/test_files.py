"""What can be said of images and manifests without an engine: linters, schemas, and what they must hold."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import compose_spec
import kubernetes_validate
import pytest
import yaml
from mlflow import environment_variables
from mlflow.models.flavor_backend_registry import get_flavor_backend
from mlflow.projects._project_spec import load_project
from packaging.utils import canonicalize_name

import mlflow_llmops
from mlflow_llmops.flavors import exported_text
from mlflow_llmops.steps import STEPS

DOCKER = Path(__file__).parents[2] / "docker"
DOCKERFILE = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
DOCKERFILES = ["Dockerfile", "Dockerfile.mlflow"]
HADOLINT = shutil.which("hadolint", path=str(Path(sys.executable).parent))
COMPOSE = yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="utf-8"))
SCORING = list(yaml.safe_load_all((DOCKER / "kubernetes" / "scoring.yaml").read_text(encoding="utf-8")))


# What KServe 0.21.0 takes, from the models of PyPI's kserve: it cannot be installed beside us (psutil below 6).
INFERENCE_SERVICE = {"apiVersion": str, "kind": str, "metadata": dict, "spec": dict}
PREDICTOR = {"containers": list, "minReplicas": int, "maxReplicas": int, "scaleMetric": str, "scaleTarget": int}
SCALE_METRICS = {"cpu", "memory"}  # concurrency and rps need Knative


def stage(target: str) -> str:
    """What the Dockerfile says of one target."""
    [found] = re.findall(rf"^FROM \S+ AS {target}(\n.*?)(?=^FROM|\Z)", DOCKERFILE, re.MULTILINE | re.DOTALL)
    return found


@pytest.mark.parametrize("name", DOCKERFILES)
def test_hadolint_finds_nothing(name):
    done = subprocess.run([HADOLINT, str(DOCKER / name)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_hadolint_would_find_something(tmp_path):
    bad = tmp_path / "Dockerfile"
    bad.write_text("FROM python\nRUN apt-get install -y nano\n")
    assert subprocess.run([HADOLINT, str(bad)], capture_output=True).returncode == 1


@pytest.mark.parametrize("name", DOCKERFILES)
def test_an_image_is_pinned_not_root_tested_and_watched(name):
    text = (DOCKER / name).read_text(encoding="utf-8")
    last = text.rpartition("\nFROM ")[2]
    assert all(":" in image and "latest" not in image for image in re.findall(r"^FROM (\S+:\S+)", text, re.MULTILINE))
    assert "HEALTHCHECK" in last
    user = text.index("\nUSER 10001")
    assert text.index("RUN python ", user) > user, "the self-test runs as who runs the image"
    ignored = (DOCKER / f"{name}.dockerignore").read_text(encoding="utf-8").split("\n")
    assert ignored[0] == "*"
    copied = [word for line in re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.MULTILINE) for word in line.split()]
    assert {f"!{word}" for word in copied} <= set(ignored)
    assert all((DOCKER.parent / word).exists() for word in copied)


@pytest.mark.parametrize(
    ("target", "step"), [("work", "self_test.py /tmp/self-test"), ("serve-exported", "serve_test.py /tmp/self-test")]
)
def test_the_last_build_step_is_the_self_test(target, step):
    steps = re.findall(r"^(?:RUN|COPY) .*?(?<!\\)$", stage(target), re.MULTILINE | re.DOTALL)
    assert steps[-1].startswith("RUN ") and steps[-1].endswith(f"python /opt/llmops/{step}")


@pytest.mark.parametrize("target", ["work", "serve", "serve-exported"])
def test_each_target_is_watched_and_not_root_when_it_is_tested(target):
    assert "\nHEALTHCHECK " in stage(target)
    if target != "serve":  # which is work with another command
        assert stage(target).index("\nUSER 10001\n") < stage(target).index("python /opt/llmops/")


@pytest.mark.parametrize("target", ["work", "serve-exported"])
def test_artifacts_come_through_the_server_and_not_from_a_store_that_may_be_out_of_reach(target):
    for way in ("DOWNLOAD", "UPLOAD"):
        known = getattr(environment_variables, f"MLFLOW_ENABLE_PROXY_MULTIPART_{way}")
        assert f"{known.name}=false" in stage(target)
        assert f"{known.name}=false" in (DOCKER / "README.md").read_text(encoding="utf-8")


def test_the_secrets_lie_outside_of_the_project_that_mlflow_copies_into_an_image():
    page = (DOCKER / "README.md").read_text(encoding="utf-8")
    [secrets] = re.findall(r"^cp docker/example.env (\S+)", page, re.MULTILINE)
    assert "/" not in secrets and f"COMPOSE_ENV_FILES=$PWD/{secrets}\n" in page
    assert secrets in (DOCKER.parent / ".gitignore").read_text(encoding="utf-8").splitlines()


def test_the_smaller_image_has_nothing_that_the_package_does_not_need():
    lines = (DOCKER / "serve_exported.txt").read_text(encoding="utf-8").splitlines()
    project = tomllib.loads((DOCKER.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    known = {re.split(r"[><=\[]", each)[0] for each in project["dependencies"]}
    assert {line for line in lines if not line.startswith("#")} - {"mlflow-skinny"} <= known
    pinned = (DOCKER.parent / "constraints.txt").read_text(encoding="utf-8").splitlines()
    names = {canonicalize_name(line.partition("==")[0]) for line in pinned}
    assert {line for line in lines if not line.startswith("#")} <= names


def test_the_compose_file_is_of_the_compose_specification():
    found = compose_spec.PyCompose.from_json(json.dumps(COMPOSE))
    assert {"mlflow", "postgres", "store", "spark-master", "spark-worker", "scoring"} <= set(found.service_names())
    with pytest.raises(ValueError, match="replica"):
        compose_spec.PyCompose.from_json(json.dumps({**COMPOSE, "replica": 2}))


def test_the_compose_file_names_what_is_there():
    for name, service in COMPOSE["services"].items():
        assert ":" in service["image"] and not service["image"].endswith(":latest"), name
        for other in service.get("depends_on", {}):
            assert other in COMPOSE["services"], (name, other)
        for place in service.get("volumes", ()):
            source = place.partition(":")[0]
            assert source in COMPOSE["volumes"] or source == "../data"
        if "build" in service:
            file = DOCKER.parent / service["build"]["dockerfile"]
            target = service["build"].get("target")
            assert target is None or f" AS {target}\n" in file.read_text(encoding="utf-8")
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), f"{name} is open to the network"
    asked = set(re.findall(r"\$\{(\w+)", (DOCKER / "compose.yaml").read_text(encoding="utf-8")))
    assert asked == set(re.findall(r"^(\w+)=", (DOCKER / "example.env").read_text(encoding="utf-8"), re.MULTILINE))


@pytest.mark.parametrize("document", SCORING, ids=lambda document: document["kind"])
def test_each_manifest_is_of_the_kubernetes_api(document):
    kubernetes_validate.validate(document, "1.34", strict=True)
    broken = {**document, "spec": {**document["spec"], "replica": 3}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, "1.34", strict=True)


def test_the_deployment_is_found_watched_and_bounded():
    found = {document["kind"]: document["spec"] for document in SCORING}
    assert set(found) == {"Deployment", "Service", "HorizontalPodAutoscaler", "PodDisruptionBudget"}
    pod = found["Deployment"]["template"]
    labels = pod["metadata"]["labels"].items()
    assert found["Service"]["selector"].items() <= labels
    assert found["PodDisruptionBudget"]["selector"]["matchLabels"].items() <= labels
    name = next(document["metadata"]["name"] for document in SCORING if document["kind"] == "Deployment")
    assert found["HorizontalPodAutoscaler"]["scaleTargetRef"]["name"] == name
    assert found["Deployment"]["replicas"] >= found["HorizontalPodAutoscaler"]["minReplicas"] > 1
    [container] = pod["spec"]["containers"]
    check_container(container)
    assert found["Service"]["ports"][0]["targetPort"] == container["ports"][0]["name"]


def test_the_inference_service_has_the_same_container():
    service = yaml.safe_load((DOCKER / "kubernetes" / "kserve.yaml").read_text(encoding="utf-8"))
    assert (service["apiVersion"], service["kind"]) == ("serving.kserve.io/v1beta1", "InferenceService")
    assert {key: type(value) for key, value in service.items()} == INFERENCE_SERVICE
    [(part, predictor)] = service["spec"].items()
    assert part == "predictor"
    assert {key: type(value) for key, value in predictor.items()} == PREDICTOR
    assert predictor["minReplicas"] <= predictor["maxReplicas"] and predictor["scaleMetric"] in SCALE_METRICS
    assert service["metadata"]["annotations"]["serving.kserve.io/deploymentMode"] == "Standard", "scaled by CPU"
    [container] = predictor["containers"]
    assert container["name"] == "kserve-container"
    check_container({**container, "startupProbe": 0, "livenessProbe": 0})
    # KServe's container is Kubernetes' own
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"containers": [container]}}
    kubernetes_validate.validate(pod, "1.34", strict=True)


def test_the_image_of_a_version_is_told_where_the_package_is(tiny_exported, tmp_path):
    """The line of docker/README.md on what `mlflow models generate-dockerfile` writes, without torch's way in."""
    exported_text.save_model(tiny_exported.folder, tmp_path / "model")
    backend = get_flavor_backend(str(tmp_path / "model"), env_manager=None)
    backend.generate_dockerfile(str(tmp_path / "model"), str(tmp_path / "mine-image"))
    page = (DOCKER / "README.md").read_text(encoding="utf-8")
    [line] = [line for line in page.splitlines() if line.startswith("sed ")]
    subprocess.run(["bash", "-c", line], cwd=tmp_path, check=True)
    text = (tmp_path / "mine-image" / "Dockerfile").read_text(encoding="utf-8")
    assert text.startswith("# Build an image that can serve mlflow models.\nFROM python:3.")
    steps = [text.index(step) for step in ("pip install mlflow==", "COPY wheels /opt/wheels", "_install_pyfunc_deps(")]
    assert steps == sorted(steps) and "ENV PIP_FIND_LINKS=/opt/wheels PIP_NO_DEPS=1\n" in text
    [model] = re.findall(r"^COPY (\S+) /opt/ml/model$", text, re.MULTILINE)
    needed = (tmp_path / "mine-image" / model / "requirements.txt").read_text(encoding="utf-8")
    assert f"mlflow-llmops=={mlflow_llmops.__version__}" in needed and "torch" not in needed


def check_container(container: dict) -> None:
    assert container["image"].endswith(f":{mlflow_llmops.__version__}")
    assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(container)
    assert {"cpu", "memory"} == set(container["resources"]["limits"]) == set(container["resources"]["requests"])
    assert not container["securityContext"]["allowPrivilegeEscalation"]
    assert container["args"][container["args"].index("--port") + 1] == str(container["ports"][0]["containerPort"])


def test_mlflow_reads_the_project_in_docker():
    project = load_project(str(DOCKER))
    assert project.docker_env["image"] == COMPOSE["services"]["work"]["image"]
    assert project.docker_env["image"].endswith(f":{mlflow_llmops.__version__}")
    assert project.docker_env["environment"] == ["MLFLOW_TRACKING_URI"], "MLflow logs the values of those named"
    for verb in STEPS:
        assert project.get_entry_point(verb).command.startswith(f"python -m mlflow_llmops {verb} ")
