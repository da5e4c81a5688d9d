"""What benchmarks/plan.py and benchmarks/prefect_overhead.py compute and print."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]


@pytest.fixture
def plan(monkeypatch):
    monkeypatch.syspath_prepend(str(REPO / "benchmarks"))
    import plan

    return plan


def test_plan__tasks_a_region_are_counted(plan):
    found = plan.counted_tasks(4096)
    assert found.keys() == {"normalize", "dedup"}
    assert found["normalize"] == 2  # the reference, and the writing
    assert 3 <= found["dedup"] <= 8  # projecting, assigning, averaging, measuring pairs


def test_plan__seconds_are_shared_but_for_those_of_one_process(plan):
    part = plan.Part(4.0, alone_s=30.0)
    found = plan.seconds_of(part, n_samples=2_000_000, workers=8, tasks=500, task_ms=2.0)
    assert found == (1000.0, 60.0, 1.0)


def test_plan__a_row_a_stage_and_the_share_of_the_scheduler(plan, monkeypatch):
    monkeypatch.setattr(plan, "PARTS", {"one": plan.Part(1.0), "two": plan.Part(2.0, matrices=1)})
    asked = argparse.Namespace(n_samples=64_000, workers=64, shard=1000, epochs=0)
    *_, one, two, _, _, said = plan.plan(asked, 10.0, {"two": 2.0}).splitlines()
    assert one == "| one | 1.0 | 0.0 | 0.6 | 64 | 0 | 0.0 |"
    assert two.startswith("| two | 2.0 | 0.0 | 1.3 | 128 | 6 | ")
    assert said.startswith("Scheduler: 39.024 % of all, 39.0 % without training.")  # 1.92 of 4.92


def run(name, *options):
    done = subprocess.run(
        [sys.executable, str(REPO / "benchmarks" / name), *options],
        check=True, stdout=subprocess.PIPE, text=True, cwd=REPO / "benchmarks",
    )  # fmt: skip
    return done.stdout.splitlines()


@pytest.mark.slow
def test_plan__empty_tasks_by_real_workers():
    first, *table = run("plan.py", "--tasks", "50", "--local", "1")
    found = json.loads(first)
    assert found["tasks"] == 50
    assert 0 < found["cpu_ms_a_task"] < 1000
    assert table[-1].startswith("Scheduler: ")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_prefect_overhead__both_ways_and_both_runs(tmp_path):
    sizes = ["--n-samples", "120", "--n-genes", "80", "--repeats", "1"]
    changes = ["--set", "train.epochs=1", "--set", "cluster.kind=none"]
    lines = run("prefect_overhead.py", *sizes, *changes, "--scratch", str(tmp_path))
    found = [json.loads(line) for line in lines[:4]]
    assert [(f["way"], f["run"]) for f in found] == [
        ("prefect", "first"), ("prefect", "again"), ("plain", "first"), ("plain", "again")
    ]  # fmt: skip
    assert [line.split(" | ")[0] for line in lines[4:]] == ["| run", "| ---", "| first", "| again"]
    assert [*tmp_path.iterdir()] == []
