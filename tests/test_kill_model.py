"""Kill -9 at three random moments of training and scoring; a worker that dies while scoring."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from dglzarr.models.files import load_model, read_history
from dglzarr.stages.explain import explain
from dglzarr.stages.score import ScoreOptions, score
from dglzarr.storage.cluster import ClusterOptions, client
from dglzarr.storage.options import Run
from dglzarr.storage.schemas import NORMALIZED
from tests.builders import digests, simulate, splits, write_matrix, write_model, write_samples

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

N_SAMPLES, N_GENES, SHARD, EPOCHS = 400, 500, 16, 30
N_REGIONS = N_SAMPLES // SHARD
TRAIN = f"""
import sys
from dglzarr.stages.train import TrainOptions, train
source, samples, target = sys.argv[1:]
options = TrainOptions(hidden=40, n_latent=8, epochs={EPOCHS}, batch_size=8, cache="stream",
                       windows_in_memory=8, patience=None)
train(source, target, samples=samples, options=options)
"""
# It rests after each step, so that the moment to kill it at cannot be missed.
SCORE = """
import sys, time
from dglzarr.stages.explain import explain
from dglzarr.stages.score import ScoreOptions, score
from dglzarr.storage.options import Run
source, samples, model, folder = sys.argv[1:]
run = Run(on_progress=lambda what, *_: time.sleep(0.01 if what == "scoring" else 0.02))
explain(source, folder + "/contributions", samples=samples, model=model, run=run)
score(folder + "/contributions", folder + "/scores", normalized=source, samples=samples,
      options=ScoreOptions(group_by="series"))
"""


class Study:
    """A normalized store in which series stand in order, and its mask."""

    def __init__(self, folder):
        values = simulate(N_SAMPLES, N_GENES, n_duplicates=0).expression
        series = [f"GSE{i // 50}" for i in range(N_SAMPLES)]
        self.source = write_matrix(
            folder / "normalized", NORMALIZED, values, split=splits(N_SAMPLES), shard=SHARD,
            series=series,
        )  # fmt: skip
        keep = np.random.default_rng(3).random(N_SAMPLES) < 0.9
        self.samples = write_samples(folder / "samples", self.source, keep=keep)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return Study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def model(study, tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "m", study.source, study.samples)


def start(code, *arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], env=environment,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip


def finish(code, *arguments):
    assert start(code, *arguments).wait(timeout=300) == 0


def kill_at_three_moments(code, arguments, progress, end, *, step):
    """Run again and again, killed each time after some more progress, within a step's seconds."""
    rng = np.random.default_rng(int(end))
    moments = np.sort(rng.choice(np.arange(1, end - 2), 3, replace=False))
    killed_at = []
    for moment in moments:
        process = start(code, *arguments)
        while progress() < moment:
            assert process.poll() is None, "it ended before its moment"
            time.sleep(0.004)
        time.sleep(rng.uniform(0, step))
        process.kill()
        assert process.wait(timeout=30) == -signal.SIGKILL
        killed_at.append(progress())
    assert killed_at[-1] < end
    assert len(set(killed_at)) > 1


def n_epochs(folder):
    history = Path(folder, "history.csv")
    return max(0, len(history.read_text().splitlines()) - 1) if history.exists() else 0


def n_regions(folder):
    written = Path(folder, "contributions", "contribution", "c")
    return len(list(written.iterdir())) if written.is_dir() else 0


def test_train__killed_at_three_random_moments__same_bits(study, tmp_path):
    places = study.source, study.samples
    finish(TRAIN, *places, tmp_path / "whole")
    arguments, epoch = [*places, tmp_path / "killed"], read_history(tmp_path / "whole/history.csv")
    kill_at_three_moments(
        TRAIN, arguments, lambda: n_epochs(tmp_path / "killed"), EPOCHS,
        step=float(np.median(epoch.seconds)),
    )  # fmt: skip
    assert not (tmp_path / "killed" / "model.json").exists()
    finish(TRAIN, *places, tmp_path / "killed")
    assert {p.name for p in (tmp_path / "killed").rglob("*")} == {
        "history.csv", "model.json", "training.json", "weights.npz"
    }  # fmt: skip
    whole, killed = load_model(tmp_path / "whole"), load_model(tmp_path / "killed")
    assert whole.model_id == killed.model_id
    for (kernel, bias, _), (kernel_, bias_, _) in zip(whole.layers, killed.layers, strict=True):
        assert np.array_equal(kernel, kernel_)
        assert np.array_equal(bias, bias_)
    assert (tmp_path / "whole" / "weights.npz").read_bytes() == (
        tmp_path / "killed" / "weights.npz"
    ).read_bytes()


def test_score__killed_at_three_random_moments__same_bytes(study, model, tmp_path):
    places = study.source, study.samples, model
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    finish(SCORE, *places, tmp_path / "whole")
    kill_at_three_moments(
        SCORE, [*places, tmp_path / "killed"], lambda: n_regions(tmp_path / "killed"), N_REGIONS,
        step=0.02,
    )  # fmt: skip
    finish(SCORE, *places, tmp_path / "killed")
    assert digests(tmp_path / "killed") == digests(tmp_path / "whole")


@pytest.mark.parametrize("after", [3, 14])
def test_score__a_worker_killed_on_a_cluster_of_two__same_bytes(study, model, tmp_path, after):
    def run(folder, on_progress=None):
        contributions = str(folder / "contributions")
        explain(
            study.source, contributions, samples=study.samples, model=model,
            run=Run(on_progress=on_progress),
        )  # fmt: skip
        score(
            contributions, str(folder / "scores"), normalized=study.source, samples=study.samples,
            options=ScoreOptions(group_by="series"),
        )  # fmt: skip

    killed = []

    with client(ClusterOptions(kind="local", n_workers=2)) as cluster:
        run(tmp_path / "whole")
        pids = list(cluster.run(os.getpid).values())

        def kill(what, done, _total):
            if what == "scoring" and done == after and not killed:
                killed.append(pids[0])
                os.kill(pids[0], signal.SIGKILL)

        run(tmp_path / "killed", kill)
    assert killed == pids[:1]
    assert digests(tmp_path / "killed") == digests(tmp_path / "whole")
