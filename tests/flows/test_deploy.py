"""The deployments: what they name exists, what they pass is valid, and a worker can run them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from dglzarr.query import describe
from dglzarr.settings import Settings
from dglzarr.testing import write_study

REPO = Path(__file__).resolve().parents[2]
FILE = REPO / "deploy" / "prefect.yaml"
DECLARED = yaml.safe_load(FILE.read_text(encoding="utf-8"))
DEPLOYMENTS = {d["name"]: d for d in DECLARED["deployments"]}
PLACE = "{{ $DGLZARR_FLOWS }}"


def test_deploy__schedules_have_a_time_zone_and_wait_for_an_operator():
    schedules = {name: d["schedules"] for name, d in DEPLOYMENTS.items()}
    assert schedules.pop("mine") == schedules.pop("ingest") == []
    assert set(schedules) == {"refit", "grow", "discover", "compare", "stability", "scrub"}
    for (schedule,) in schedules.values():
        assert schedule["timezone"] == "UTC"
        assert schedule["active"] is False
    assert {d["work_pool"]["name"] for d in DEPLOYMENTS.values()} == {"dglzarr"}


def test_deploy__one_run_at_a_time():
    limits = [d["concurrency_limit"] for d in DEPLOYMENTS.values()]
    assert limits == [{"limit": 1, "collision_strategy": "CANCEL_NEW"}] * len(DEPLOYMENTS)


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_deploy__parameters_are_settings(name):
    settings = Settings.model_validate(DEPLOYMENTS[name]["parameters"]["settings"])
    assert settings.root == "{{ $PWD }}/study"  # a flow refuses relative paths


@pytest.mark.slow
@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_deploy__entrypoints_are_flows_by_path(name, tmp_path, monkeypatch):
    from prefect import Flow
    from prefect.flows import load_flow_from_entrypoint

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    entrypoint = DEPLOYMENTS[name]["entrypoint"].replace(PLACE, str(REPO / "flows"))
    flow = load_flow_from_entrypoint(entrypoint, use_placeholder_flow=False)
    assert isinstance(flow, Flow)
    assert flow.name == name
    flow.validate_parameters(DEPLOYMENTS[name]["parameters"])


@pytest.fixture
def prefect(prefect_server, tmp_path):  # noqa: ARG001
    """Run the prefect program against the temporary server, in a folder of its own."""
    from prefect.settings import PREFECT_API_URL

    environment = {
        **os.environ,
        "PREFECT_API_URL": PREFECT_API_URL.value(),
        "PWD": str(tmp_path),
        "DGLZARR_FLOWS": str(REPO / "flows"),
    }

    def call(*arguments):
        done = subprocess.run(
            [Path(sys.executable).with_name("prefect"), *arguments],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return call


@pytest.mark.slow
def test_deploy__registered_and_run_by_a_worker(prefect, tmp_path):
    from prefect.client.orchestration import get_client

    prefect("work-pool", "create", "dglzarr", "--type", "process")
    prefect("--no-prompt", "deploy", "--all", "--prefect-file", str(FILE))
    with get_client(sync_client=True) as client:
        for name, declared in DEPLOYMENTS.items():
            found = client.read_deployment_by_name(f"{name}/{name}")
            assert found.work_pool_name == "dglzarr"
            here = json.dumps(declared["parameters"]).replace("{{ $PWD }}", str(tmp_path))
            assert found.parameters == json.loads(here)
            assert found.description == declared["description"]
            strategy = declared["concurrency_limit"]["collision_strategy"]
            assert found.concurrency_options.collision_strategy == strategy
            schedules = [(s.schedule.cron, s.schedule.timezone, s.active) for s in found.schedules]
            wanted = [(s["cron"], s["timezone"], s["active"]) for s in declared["schedules"]]
            assert schedules == wanted

    write_study(tmp_path, n_samples=40, n_genes=60)
    settings = {
        "root": f"{tmp_path}/study",
        "sources": [{"uri": f"{tmp_path}/data/*.gctx"}],
        "ingest": {"split_by": "sample"},
        "select": {"n_landmarks": 5},
        "cluster": {"kind": "none"},
    }
    prefect("deployment", "run", "ingest/ingest", "--param", f"settings={json.dumps(settings)}")
    prefect("worker", "start", "--pool", "dglzarr", "--run-once")
    found = describe(str(tmp_path / "study" / "segments" / "0000" / "expression.zarr"))
    assert found["complete"]
