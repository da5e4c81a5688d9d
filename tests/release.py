"""Try a release: build it, install it in fresh environments, test it there, and say what is in it.

    python tests/release.py                  # all checks
    python tests/release.py --only build clean audit

``build`` makes wheel and sdist in ``dist/``, the wheel from the sdist. ``clean`` mines the demo
with the installed wheel, far from the sources. ``lowest``, ``newest``, ``3.12`` and ``3.13`` pass
the fast tests with the lowest direct dependencies that pyproject.toml allows, with the newest, and
with the tested ones on those Pythons. ``licences``, ``audit`` and ``sbom`` are of what ``clean``
installs: all permissive, no known vulnerability, and a list of it all in ``dist/sbom.json``. What
cannot be done here, without those Pythons or the database of vulnerabilities, is said. Exit status
1 when a check fails.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

REPO = Path(__file__).resolve().parents[1]
DIST = REPO / "dist"
TOOLS = ("uv>=0.8", "pip-audit>=2.9", "cyclonedx-bom>=7")
CONSTRAINTS = ("-c", str(REPO / "constraints.txt"))
DEMO = """
from pathlib import Path
from dglzarr.testing import write_study
write_study(Path("demo"))
"""
PERMISSIVE = re.compile(
    r"\b(MIT|BSD|Apache|ISC|PSF|Python|HPND|MPL|Mozilla|Unlicense|Zlib|CC0|0BSD|PIL)", re.IGNORECASE
)
STRONG = re.compile(r"\b(A?GPL|GNU (Affero )?General|SSPL|Commons Clause)", re.IGNORECASE)
KNOWN = {
    "namex": "Apache-2.0, in its repository alone",
    "setuptools": "MIT, in a file alone",
    "text-unidecode": "Artistic License, of the two that it offers",
}
"""Permissive packages whose metadata do not say so."""
INSTALLED = """
import json
from importlib.metadata import distributions
found = {}
for one in distributions():
    told = one.metadata
    classes = [c for c in told.get_all("Classifier", []) if c.startswith("License ::")]
    words = [told.get("License-Expression") or "", *classes, (told.get("License") or "")[:200]]
    found[told["Name"]] = " | ".join(word for word in words if word)
print(json.dumps(found))
"""


class FailedError(Exception):
    """A check failed; its text says why."""


def call(*command: str | Path, cwd: Path = REPO, log: Path | None = None) -> str:
    """Return what a command prints; with ``log`` a file has it as it comes.

    Raises
    ------
    FailedError
        With the end of what it said when it failed.
    """
    words = [str(word) for word in command]
    if log is None:
        done = subprocess.run(words, cwd=cwd, check=False, capture_output=True, text=True)
        printed, told = done.stdout, done.stdout + done.stderr
    else:
        log.parent.mkdir(exist_ok=True)
        with log.open("wb") as said:
            done = subprocess.run(words, cwd=cwd, check=False, stdout=said, stderr=said)
        printed = told = log.read_text("utf-8", errors="replace")
    if done.returncode:
        last = told.strip().splitlines()[-15:]
        raise FailedError("\n    ".join([f"{' '.join(words[:4])} ... failed:", *last]))
    return printed


class Release:
    """Environments below a folder, and the checks that use them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        call(sys.executable, "-m", "venv", folder / "tools")
        call(folder / "tools/bin/python", "-m", "pip", "install", "--quiet", *TOOLS)
        self.checks: dict[str, Callable[[], str]] = {
            "build": self.build,
            "clean": self.clean,
            "lowest": self.lowest,
            "newest": lambda: self.tested("newest"),
            "3.12": lambda: self.on("3.12"),
            "3.13": lambda: self.on("3.13"),
            "licences": self.licences,
            "audit": self.audit,
            "sbom": self.sbom,
        }

    def tool(self, name: str, *words: str | Path) -> str:
        """Return what a tool prints."""
        return call(self.folder / "tools" / "bin" / name, *words)

    def environment(self, name: str, *words: str | Path, python: str = sys.executable) -> Path:
        """Return the Python of an environment with something installed."""
        place = self.folder / name
        self.tool("uv", "venv", "--quiet", "--clear", "--python", python, place)
        found = place / "bin" / "python"
        self.tool("uv", "pip", "install", "--quiet", "--python", found, *words)
        return found

    def build(self) -> str:
        """Make wheel and sdist."""
        shutil.rmtree(DIST, ignore_errors=True)
        self.tool("uv", "build", "--quiet", "--out-dir", DIST, REPO)
        return ", ".join(f"{p.name} {p.stat().st_size // 1000} kB" for p in sorted(DIST.glob("d*")))

    @property
    def wheel(self) -> Path:
        """The wheel."""
        if not list(DIST.glob("*.whl")):
            self.build()
        return next(DIST.glob("*.whl"))

    def installed(self) -> Path:
        """Return the Python of an environment that has the wheel, as it is released."""
        known = self.folder / "clean" / "bin" / "python"
        if known.exists():
            return known
        return self.environment("clean", *CONSTRAINTS, f"dglzarr[all] @ {self.wheel.as_uri()}")

    def clean(self) -> str:
        """Mine the demo by the wheel."""
        python, away = self.installed(), self.folder / "away"
        away.mkdir(exist_ok=True)
        call(python, "-c", DEMO, cwd=away)
        told = call(python.with_name("dglzarr"), "mine", "demo/study.toml", cwd=away)
        page = away / "demo" / "study" / "report.html"
        if not page.exists():
            raise FailedError(f"mine wrote no report: {told[-300:]}")
        return f"mined the demo: a report of {page.stat().st_size // 1000} kB"

    def lowest(self) -> str:
        """Pass the fast tests with the lowest direct dependencies."""
        pins = self.folder / "lowest.txt"
        extras = [
            f"--extra={e}" for e in ("dev", "all", "oracle", "slurm", "kubernetes", "gateway")
        ]
        self.tool(
            "uv", "pip", "compile", "--quiet", "--resolution", "lowest-direct", "--output-file",
            pins, *extras, REPO / "pyproject.toml",
        )  # fmt: skip
        return self.tested("lowest", "-r", pins)

    def tested(self, name: str, *words: str | Path, python: str = sys.executable) -> str:
        """Pass the fast tests in an environment; ``dist/NAME.log`` has what they say as it comes.

        Libraries of other times than those tested together may warn of each other.
        """
        found = self.environment(name, *words, "-e", f"{REPO}[dev]", python=python)
        options = ["-m", "not slow", "-q", "-p", "no:cacheprovider", "-n", "2", "--dist=loadfile"]
        if name in ("lowest", "newest"):
            options += ["-W", "default::DeprecationWarning"]
        said = call(found, "-m", "pytest", *options, log=DIST / f"{name}.log")
        return said.strip().splitlines()[-1]

    def on(self, version: str) -> str:
        """Pass the fast tests on another Python, with the versions that were tested together."""
        program = f"python{version}"
        try:
            call(program, "--version")
        except (FailedError, OSError):  # a shim may stand where no such Python is chosen
            return f"NOT DONE: there is no {program} on this machine"
        return self.tested(version, *CONSTRAINTS, python=version)

    def licences(self) -> str:
        """Find no licence but permissive ones."""
        found: dict[str, str] = json.loads(call(self.installed(), "-c", INSTALLED))
        wrong = [
            f"{name}: {told or 'tells none'}"
            for name, told in sorted(found.items())
            if name not in KNOWN and (STRONG.search(told) or not PERMISSIVE.search(told))
        ]
        if wrong:
            raise FailedError("\n    ".join(["not known to be permissive:", *wrong]))
        return f"{len(found)} packages, all permissive"

    def audit(self) -> str:
        """Find no known vulnerability."""
        place = self.folder / "audit.json"
        packages = next((self.installed().parents[1] / "lib").glob("python*/site-packages"))
        tool = self.folder / "tools" / "bin" / "pip-audit"
        command = [tool, "--path", packages, "--format", "json", "--output", place]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if not place.exists():
            said = done.stderr.strip().splitlines()[-1:]
            return f"NOT DONE: the database cannot be reached: {' '.join(said)}"
        told = json.loads(place.read_text("utf-8"))["dependencies"]
        skipped = [one["name"] for one in told if "skip_reason" in one and one["name"] != "dglzarr"]
        wrong = [f"{o['name']} {o['version']}: {v['id']}" for o in told for v in o.get("vulns", [])]
        if wrong:
            raise FailedError("\n    ".join(["known vulnerabilities:", *wrong]))
        if len(skipped) > len(told) // 2:
            return f"NOT DONE: the database knows nothing of {len(skipped)} of {len(told)} packages"
        return f"{len(told) - len(skipped)} packages, no known vulnerability"

    def sbom(self) -> str:
        """List all that is installed."""
        place = DIST / "sbom.json"
        self.tool("cyclonedx-py", "environment", "--output-file", place, self.installed())
        told = json.loads(place.read_text("utf-8"))
        return f"{place.relative_to(REPO)}: {len(told['components'])} components"


def main() -> int:
    """Run the checks asked for and print a line each."""
    names = ("build", "clean", "lowest", "newest", "3.12", "3.13", "licences", "audit", "sbom")
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--scratch", help="folder for the environments, about 3 GB each")
    asked = parser.parse_args()
    n_failed = 0
    with tempfile.TemporaryDirectory(prefix="release-", dir=asked.scratch) as folder:
        release = Release(Path(folder))
        for name in asked.only:
            started = time.monotonic()
            try:
                told = release.checks[name]()
            except FailedError as error:
                told, n_failed = f"FAILED: {error}", n_failed + 1
            sys.stdout.write(f"{name:<9} {time.monotonic() - started:5.0f} s  {told}\n")
            sys.stdout.flush()
    return int(n_failed > 0)


if __name__ == "__main__":
    sys.exit(main())
