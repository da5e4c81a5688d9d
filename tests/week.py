"""A week of the nightly job in fast motion: what an operator sees and types.

    python tests/week.py

A real Prefect server (on PostgreSQL where it is installed, else SQLite) and a worker run the
deployment ``grow`` as shipped, its schedule set to every minute, one fired run a day. Files come,
one of them is broken, a run and its worker are killed, the package is upgraded from an older commit
(its wheel and flows) to this one, and the server is killed. What the operator saw is printed as
Markdown; exit status 1 when the study is not at the end what the same files make undisturbed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import psutil

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from dglzarr.query.checks import verify_study
from dglzarr.settings import build_settings
from dglzarr.storage.study import open_study
from dglzarr.studies.grow import grow
from dglzarr.testing import write_study
from tests import prefect_server
from tests.builders import digests
from tests.kills import say
from tests.prefect_server import REPO, SMALL, Server, deployed, postgresql, wait

OLDER = "2e52127"
"""The commit of release 0.2.0."""
NAMES = [f"GSE9000{n}_series_matrix.txt.gz" for n in range(11, 18)]
FINAL = {"COMPLETED", "FAILED", "CRASHED"}


class Week:
    """A study, its server, and the files that wait to come."""

    def __init__(self, folder: Path, server: Server) -> None:
        self.folder, self.server = folder, server
        self.data, self.held = folder / "geo", folder / "held"
        self.rows: list[tuple[str, ...]] = []
        self.n_runs = 0
        self.study = {
            "root": f"{folder}/study",
            "sources": [{"uri": f"{self.data}/*_series_matrix.txt.gz"}],
            **SMALL,
        }

    def begin(self, package: Path) -> None:
        """Mine the first files, and deploy."""
        write_study(self.folder, n_samples=120, n_genes=60)
        self.held.mkdir()
        (self.folder / "data").rename(self.data)
        for name in NAMES:
            (self.data / name).rename(self.held / name)
        self.use(package)
        self.mine(self.study, self.folder / "study.toml")
        self.server.call("work-pool", "create", "dglzarr", "--type", "process")
        automations = (REPO / "deploy" / "automations.yaml").read_text("utf-8")
        dead = automations.partition("\n  # Who is told")[0]
        (self.folder / "automations.yaml").write_text(dead, encoding="utf-8")
        self.server.call("automation", "create", "--from-file", "automations.yaml")
        deployed(self.server, "grow", self.study, each_minute=True, active=False)
        self.worker()

    def mine(self, study: dict[str, Any], place: Path) -> None:
        """Write a study's settings to a file, and mine it by the package that is used."""
        source = study["sources"][0]["uri"]
        lines = [f'root = "{study["root"]}"', "[[sources]]", f'uri = "{source}"']
        for section, values in SMALL.items():
            lines += [f"[{section}]", *(f"{k} = {json.dumps(v)}" for k, v in values.items())]
        place.write_text("\n".join(lines) + "\n", encoding="utf-8")
        self.python("from dglzarr.cli import main; main()", "mine", str(place))

    def use(self, package: Path) -> None:
        """Let all programs started from now on have a package, and its flows."""
        self.server.environment |= {
            "PYTHONPATH": str(package / "site"),
            "DGLZARR_FLOWS": str(package / "flows"),
        }

    def python(self, program: str, *arguments: str) -> str:
        """Run a program in Python; return what it says."""
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments], cwd=self.folder,
            env=self.server.environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def worker(self) -> None:
        """Start the worker."""
        self.server.start("worker", "worker", "start", "--pool", "dglzarr")

    def schedule(self, *, active: bool) -> None:
        """Resume or pause the schedule."""
        found = self.server.ask("deployments/name/grow/grow")
        verb = "resume" if active else "pause"
        (schedule,) = found["schedules"]
        self.server.call("deployment", "schedule", verb, "grow/grow", schedule["id"])

    def come(self, *names: str) -> None:
        """Let files come."""
        for name in names:
            (self.held / name).rename(self.data / name)

    def night(self, kill: bool = False) -> dict:
        """Wait for the next run that fires and its end; return it."""
        known = {run["id"] for run in self.all_runs()}
        raws = len(open_study(self.study["root"]).raws())
        self.schedule(active=True)
        (begun,) = wait(lambda: self.begun(known), self.server)[:1]
        if kill:
            wait(lambda: len(open_study(self.study["root"]).raws()) > raws, self.server)
            self.server.kill_last()
        self.schedule(active=False)
        ended = self.ended(begun["id"])
        wait(self.is_quiet, self.server)  # on a busy machine another may have fired meanwhile
        self.n_runs += 1
        return ended

    def is_quiet(self) -> bool:
        """Return whether no run works or waits."""
        return all(run["state_type"] in {"CANCELLED", *FINAL} for run in self.all_runs())

    def all_runs(self) -> list[dict]:
        return self.server.ask("flow_runs/filter", {"flow_runs": {}})

    def begun(self, known: set[str]) -> list[dict]:
        states = {"RUNNING", *FINAL}
        return [r for r in self.all_runs() if r["id"] not in known and r["state_type"] in states]

    def ended(self, name: str) -> dict:
        """Return a run once it has ended."""

        def look() -> list[dict]:
            return [r for r in self.all_runs() if r["id"] == name and r["state_type"] in FINAL]

        (run,) = wait(look, self.server)
        return run

    def by_hand(self, *words: str) -> dict:
        """Type a command that makes a run; return the run once it has ended."""
        known = {run["id"] for run in self.all_runs()}
        self.server.call(*words)
        (begun,) = wait(lambda: self.begun(known), self.server)[:1]
        return self.ended(begun["id"])

    def saw(self, run: dict) -> str:
        """Return what the operator sees of a run: its state and line, or what it added."""
        told = run["state"]["message"] or ""
        if run["state_type"] == "COMPLETED":
            asked = {
                "artifacts": {"flow_run_id": {"any_": [run["id"]]}, "key": {"any_": ["growth"]}}
            }
            found = self.server.ask("artifacts/filter", asked)
            told = (
                " / ".join(line.strip() for line in found[0]["data"].splitlines()) if found else ""
            )
        return f"{run['state_name']}: {told}".replace(str(self.folder), "/srv/dglzarr")

    def note(self, day: int, what: str, run: dict, typed: str = "-") -> None:
        """Keep a day as a row of the table, and print it."""
        fired = "fired" if (run.get("created_by") or {}).get("type") == "SCHEDULE" else "by hand"
        self.rows.append((str(day), what, fired, self.saw(run), typed))
        say(f"| {' | '.join(self.rows[-1])} |")


def live(week: Week, newer: Path, server: Server) -> None:
    """Live through the week."""
    week.come(NAMES[0])
    week.note(1, "a new file", week.night())
    week.note(2, "nothing new", week.night())

    broken = week.data / NAMES[1]
    content = (week.held / NAMES[1]).read_bytes()
    broken.write_bytes(content[: len(content) // 2])
    week.come(NAMES[2])
    week.note(3, "two new files, one of them cut short", week.night())

    shutil.move(broken, week.folder / "rejected.gz")
    week.note(
        4, "the broken one was moved out of geo/", week.night(), f"mv geo/{NAMES[1]} rejected/"
    )

    week.come(NAMES[1], NAMES[3])
    week.note(5, "two new files; run and worker killed with -9", week.night(kill=True))
    week.worker()
    run = week.by_hand("deployment", "run", "grow/grow")
    typed = "prefect worker start --pool dglzarr; prefect deployment run grow/grow"
    week.note(5, "the worker was started again", run, typed)

    server.programs[-1].terminate()  # the worker, which is idle
    server.programs[-1].wait(timeout=60)
    week.use(newer)
    said = week.python("from dglzarr.cli import main; main()", "verify", week.study["root"])
    say(said.strip().splitlines()[-1])
    deployed(server, "grow", week.study, each_minute=True, active=False)
    week.worker()
    week.come(NAMES[4])
    deploy = "prefect --no-prompt deploy --all"
    typed = f"pip install ...; dglzarr verify study; {deploy}; prefect worker start ..."
    week.note(6, "upgraded to this version; a new file", week.night(), typed)

    kill(server.programs[0].pid)
    server.serve()
    week.come(NAMES[5], NAMES[6])
    week.note(
        7, "the server was killed with -9 and started again; two new files", week.night(),
        "prefect server start --background",
    )  # fmt: skip


def kill(pid: int) -> None:
    """Kill a program and all that it started."""
    last = psutil.Process(pid)
    for program in [*last.children(recursive=True), last]:
        program.kill()


def undisturbed(week: Week, older: Path) -> list[str]:
    """Return what differs from a study of the same files, grown day by day without a fault.

    It is mined by the older package too: what it evaluated then is not evaluated again.
    """
    other = week.folder / "undisturbed"
    shutil.copytree(week.data, other / "geo")
    held = other / "held"
    held.mkdir()
    days = [NAMES[:1], NAMES[2:3], [NAMES[1], NAMES[3]], NAMES[4:5], NAMES[5:]]
    for name in NAMES:
        (other / "geo" / name).rename(held / name)
    study = week.study | {"root": str(other / "study")}
    study["sources"] = [{"uri": f"{other}/geo/*_series_matrix.txt.gz"}]
    week.use(older)
    week.mine(study, other / "study.toml")
    settings = build_settings(study, name="week", folder=other)
    for names in days:
        for name in names:
            (held / name).rename(other / "geo" / name)
        grow(settings)
    roots = Path(week.study["root"]), other / "study"
    ours, theirs = ({str(p.relative_to(r)): digests(p) for p in r.rglob("*.zarr")} for r in roots)
    return [name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name)]


def unpacked(folder: Path, revision: str) -> Path:
    """Return a folder with the package of a revision as it is installed, and its flows."""
    source, names = folder / "source", "dglzarr flows pyproject.toml README.md LICENSE"
    source.mkdir(parents=True)
    command = f"git archive {revision} {names}" if revision else f"tar -c {names}"
    packed = subprocess.run(command.split(), cwd=REPO, check=True, capture_output=True)
    subprocess.run(["tar", "-x"], cwd=source, input=packed.stdout, check=True)  # noqa: S607
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", folder / "site", source], check=True)
    shutil.copytree(source / "flows", folder / "flows")
    return folder


def main() -> int:
    """Live through a week; print it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--older", default=OLDER, help="commit that is upgraded from")
    asked = parser.parse_args()
    prefect_server.SECONDS = 900  # to wait on a busy machine
    with tempfile.TemporaryDirectory(prefix="week-") as place, postgresql() as database:
        folder = Path(place)
        older, newer = (unpacked(folder / n, r) for n, r in (("old", asked.older), ("new", "")))
        say(f"Server on {'PostgreSQL' if database else 'SQLite'}; upgrade from {asked.older}.")
        say("| day | what happened | run | what the operator saw | what they typed |")
        say("| --- | --- | --- | --- | --- |")
        server = Server(folder, database)
        try:
            server.serve()
            week = Week(folder, server)
            week.begin(older)
            live(week, newer, server)
        finally:
            server.stop()
        problems = [r["uri"] for r in verify_study(week.study["root"]) if r["problems"]]
        wrong = problems or undisturbed(week, older)
    say(
        f"{week.n_runs} fired runs; "
        + (f"differs: {wrong}" if wrong else "same bytes as undisturbed")
    )
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
