"""What docs/operate.md tells an operator to type at PostgreSQL and Prefect works as it stands.

Its blocks are typed from the page, at a real PostgreSQL, server and worker. The folder and the two
ports are others; ``PGHOST`` and ``PGPORT`` say to PostgreSQL's programs what is Debian's default.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dglzarr.testing import write_study
from tests.pages import blocks, inline
from tests.prefect_server import REPO, SECONDS, SMALL, database_server, free_port

PAGE = (REPO / "docs" / "operate.md").read_text(encoding="utf-8")
SOURCE = '      - uri: "{{ $PWD }}/geo/*_series_matrix.txt.gz"\n'
ANSWER = (
    "curl --silent --output /dev/null --write-out '%{http_code}' "
    "http://127.0.0.1:4200/api/admin/version"
)
SHELL = "set -e\nif [ -e server.env ]; then . ./server.env; fi\n"


class Operator:
    """A folder as the page has it, and terminals in it."""

    def __init__(self, folder, place, port):
        self.folder, self.terminals = folder, []
        self.ours = {
            "/srv/dglzarr": str(folder), "127.0.0.1:5432": f"127.0.0.1:{port}",
            "4200": str(free_port()),
        }  # fmt: skip
        kept = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
        path = f"{Path(sys.executable).parent}:{kept['PATH']}"
        self.environment = {**kept, "PATH": path, "PGHOST": place, "PGPORT": str(port)}
        write_study(folder, n_samples=120, n_genes=60)
        (folder / "data").rename(folder / "geo")
        (folder / "src").symlink_to(REPO)

    def begins(self, text, name="typed.log"):
        """Type lines that may go on; return their shell. What they say is in a file."""
        for theirs, ours in self.ours.items():
            text = text.replace(theirs, ours)
        with (self.folder / name).open("wb") as said:
            shell = subprocess.Popen(
                ["/bin/bash", "-c", SHELL + text], cwd=self.folder, env=self.environment,
                stdout=said, stderr=said, start_new_session=True,
            )  # fmt: skip
        self.terminals.append(shell)
        return shell

    def types(self, text, status=0):
        """Type lines and wait for their end; return what they say."""
        ended = self.begins(text).wait(timeout=SECONDS)
        assert ended == status, f"{text}\n{self.said('typed.log')}"
        return self.said("typed.log")

    def said(self, name):
        return (self.folder / name).read_text(errors="replace")

    def leaves(self):
        """End all that goes on."""
        for shell in self.terminals:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)
            shell.wait(timeout=30)


@pytest.fixture
def operator(tmp_path):
    if os.geteuid():
        pytest.skip("operate.md's PostgreSQL: 'su postgres' without a password takes root")
    options = ("-U", "postgres", "--auth-local=trust", "--auth-host=scram-sha-256")
    with database_server(*options) as found:
        if found is None:
            pytest.skip("operate.md's PostgreSQL: Debian's is not installed (make parts)")
        _, place, port = found
        operator = Operator(tmp_path, place, port)
        try:
            yield operator
        finally:
            stopping = operator.begins(inline(PAGE, "prefect server stop"))
            stopping.wait(timeout=60)
            operator.leaves()


def write_settings(file):
    """Write settings under ``definitions: study``, as the page asks."""
    ours = "".join(f"    {section}: {json.dumps(keys)}\n" for section, keys in SMALL.items())
    text = file.read_text(encoding="utf-8")
    assert SOURCE in text
    file.write_text(text.replace(SOURCE, SOURCE + ours, 1), encoding="utf-8")


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_operate__server_schedule_alarms_and_backups(operator):
    a_server_with_a_password(operator)
    first, then, automations = blocks(PAGE, "The first schedule")
    copied, *deploy, worker = first.splitlines()
    operator.types(copied)
    write_settings(operator.folder / "prefect.yaml")
    operator.types("\n".join(deploy))
    operator.begins(worker, "worker.log")
    watched, *schedule = then.splitlines()
    a_run_watched_and_backed_up(operator, watched)
    a_schedule_that_stays(operator, schedule)
    alarms(operator, automations)
    its_log_and_the_state_of_the_server(operator)


def a_server_with_a_password(operator):
    database, server = blocks(PAGE, "A server that keeps its state in PostgreSQL")
    operator.types(database)
    operator.types(server)
    assert (operator.folder / "server.env").stat().st_mode & 0o777 == 0o600
    assert operator.types(ANSWER) == "401"
    assert operator.types(f"{ANSWER} --user operator:change-me-too") == "200"


def a_run_watched_and_backed_up(operator, watched):
    (backup, _) = blocks(PAGE, "Backup and restore")
    watching = operator.begins(watched, "watched.log")
    while operator.begins("flock --nonblock study/study.lock true").wait() != 1:
        assert watching.poll() is None, operator.said("watched.log")
        time.sleep(0.2)
    operator.types(backup, status=1)  # while the run changes the study
    assert [*(operator.folder / "backup").iterdir()] == []
    assert watching.wait(timeout=SECONDS) == 0
    assert "Completed" in operator.said("watched.log")
    assert {*re.findall(r"^problems +(.*)$", operator.types(backup), re.MULTILINE)} == {"none"}


def a_schedule_that_stays(operator, schedule):
    """It is active, and still so after the deployment of an upgrade."""
    active = r"0 3 \* \* \*.* True "
    assert re.search(active, operator.types("\n".join(schedule)))
    upgrade = "".join(blocks(PAGE, "Upgrades")).splitlines()
    (deploy,) = [line for line in upgrade if line.startswith("prefect ")]
    assert re.search(active, operator.types(f"{deploy}\n{schedule[-1]}"))


def alarms(operator, automations):
    operator.types(inline(PAGE, "prefect block register"))
    made = "from prefect.blocks.notifications import CustomWebhookNotificationBlock as Block;"
    made += "print(Block(name='us', url='http://127.0.0.1:9').save('us'))"
    block = operator.types(f'python -c "{made}"').split()[-1]  # on the page of the server
    assert block in operator.types(inline(PAGE, "COLUMNS=200 prefect block ls"))
    file = operator.folder / "automations.yaml"
    file.write_text(re.sub("0{8}-[0-]+", block, file.read_text("utf-8")), encoding="utf-8")
    operator.types(automations)
    listed = operator.types("COLUMNS=200 prefect automation ls")
    assert {"dglzarr-dead-runs", "dglzarr-never-begun", "dglzarr-failures"} <= {*listed.split()}


def its_log_and_the_state_of_the_server(operator):
    listed = operator.types(inline(PAGE, "COLUMNS=200 prefect flow-run ls"))
    (run,) = re.findall(r"([0-9a-f]{8}-[0-9a-f-]{27}).* mine ", listed)
    log = operator.types(inline(PAGE, "prefect flow-run logs ID").replace("ID", run))
    assert "normalized.zarrnew" in "".join(log.split())

    operator.types(inline(PAGE, 'su postgres -c "pg_dump'))
    counted = operator.types(
        'su postgres -c "createdb restored"\n'
        'su postgres -c "psql --quiet restored" < prefect.sql > restored.log\n'
        "su postgres -c \"psql -At restored -c 'select count(*) from deployment'\""
    )
    assert counted.split()[-1] == "8"
    assert not (operator.folder / "prefect" / "prefect.db").exists()
    operator.types(inline(PAGE, "prefect server stop"))
    operator.types(ANSWER, status=7)  # nobody is there
