"""The image and the composition of containers, looked at where no engine can build and run them."""

import re
import shutil
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

import pytest
import yaml

from dglzarr.storage import launch
from dglzarr.storage.cluster_options import ClusterOptions

REPO = Path(__file__).resolve().parents[2]
DEPLOY = REPO / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
SERVICES = COMPOSE["services"]
KINDS = get_args(ClusterOptions.model_fields["kind"].annotation)


@pytest.mark.slow
def test_compose__is_one_by_its_schema(tmp_path):
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run(
        [*command, DEPLOY / "compose.yaml"], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    wrong = tmp_path / "compose.yaml"
    wrong.write_text("services: {a: {image: b, comand: c}}", encoding="utf-8")
    assert subprocess.run([*command, wrong], check=False, capture_output=True).returncode == 1


def test_compose__services_are_of_this_image_and_not_open_to_the_network():
    assert set(SERVICES) == {"database", "server", "runner", "scheduler", "worker", "serve"}
    for name, service in SERVICES.items():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        if name != "database":
            assert service["image"] == f"dglzarr:{version()}"
            assert service["cap_drop"] == ["ALL"]
            assert set(service.get("depends_on", {})) <= set(SERVICES)
    used = set(re.findall(r"\$\{(\w+)", (DEPLOY / "compose.yaml").read_text(encoding="utf-8")))
    assert used == {"DGLZARR_STUDY", "DGLZARR_PASSWORD", "DGLZARR_UID", "DGLZARR_TRAIN"}


def test_compose__prefect_yaml_finds_its_folder_where_no_shell_sets_it():
    runner = SERVICES["runner"]
    (mount,) = runner["volumes"]
    assert {runner["environment"]["PWD"], mount.rpartition(":")[2]} == {"/study"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["server", "runner", "scheduler", "worker", "serve"])
def test_compose__commands_and_their_options_exist(name):
    program, *words = SERVICES[name]["command"]
    verbs = [word for word in words[:2] if re.fullmatch(r"[a-z]+", word)]
    path = Path(sys.executable).with_name(program)
    said = subprocess.run(
        [path, *verbs, "--help"], check=True, capture_output=True, text=True,
        env={"PATH": "/usr/bin:/bin", "COLUMNS": "200", "NO_COLOR": "1", "HOME": "/tmp"},  # noqa: S108
    ).stdout  # fmt: skip
    for option in (word for word in words if word.startswith("--")):
        assert option in said


def test_dockerfile__is_pinned_and_runs_as_nobody_special():
    stages = re.findall(r"^FROM (\S+)(?: AS (\w+))?$", DOCKERFILE, re.MULTILINE)
    assert stages == [("python:${PYTHON}", "build"), ("python:${PYTHON}", "")]
    assert re.search(r"^ARG PYTHON=3\.\d+\.\d+-slim-\w+$", DOCKERFILE, re.MULTILINE)
    assert re.findall(r"^USER (\S+)$", DOCKERFILE, re.MULTILINE) == ["10001"]
    assert f"ARG VERSION={version()}" in DOCKERFILE
    assert {"train", "gpu", *installed()} <= set(project()["optional-dependencies"])


def test_dockerfile__has_what_every_root_and_cluster_of_the_page_needs():
    """By extra, the package without which a root, a kind of cluster or a table is refused."""
    page = (REPO / "docs" / "operate.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| .* \| .* \|$", page, re.MULTILINE)
    kinds = {kind for row in rows for kind in re.findall(r"\w+", row)} & set(KINDS)
    assert kinds == set(KINDS) - {"none"}  # all are described
    needed = {extra for kind in kinds if (extra := launch._PACKAGES.get(kind, ("", ""))[1])}
    assert needed == {"slurm", "kubernetes", "gateway"}
    said = {place.partition(":")[0] for place in re.findall(r"`(s3://|gs://|az://)", page)}
    assert said == {"s3", "gs", "az"}
    assert {*needed, "buckets", "flows", "parquet", "serve"} <= {*installed()}
    extras = project()["optional-dependencies"]
    own = " ".join(" ".join(extras[extra]) for extra in installed())
    for package, _ in launch._PACKAGES.values():
        assert package.replace("_", "-") in own
        assert find_spec(package) is not None
    assert "obstore" in own
    assert find_spec("obstore") is not None


def test_dockerfile__what_it_copies_is_there_and_not_ignored():
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").split()
    for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE):
        *sources, _ = line.split()
        for source in sources:
            assert (REPO / source).exists()
            assert f"!{source}" in ignored


@pytest.mark.skipif(
    not shutil.which("hadolint"),
    reason="hadolint is not installed (GPL, so no dependency of ours)",
)
def test_dockerfile__as_hadolint_wants_it():
    command = [shutil.which("hadolint"), DEPLOY / "Dockerfile"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def installed():
    """The extras that the image has, beside the one for training."""
    (asked,) = re.findall(r'"\.\[\$\{TRAIN\},([\w,]+)\]"', DOCKERFILE)
    return asked.split(",")


def project():
    return tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def version():
    return project()["version"]
