"""The command line: load settings, call, print. No logic of its own."""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table

from dglzarr import query
from dglzarr.config import load_settings
from dglzarr.errors import ConfigError, DglzarrError
from dglzarr.forecast import estimate
from dglzarr.pipeline import STAGES, grow, mine, refit
from dglzarr.report.text import drift_lines, headline
from dglzarr.testing import write_study

if TYPE_CHECKING:
    from collections.abc import Callable

app = typer.Typer(
    name="dglzarr",
    help="Mine landmark genes from expression compendia.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
out = Console(soft_wrap=True)
err = Console(stderr=True, soft_wrap=True)

SettingsFile = Annotated[Path, typer.Argument(help="Settings of the study, a TOML file.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="section.key=value; replaces a setting. May be repeated."),
]
Overwrite = Annotated[
    bool,
    typer.Option(help="Replace stores that were made from other inputs or parameters."),
]
Folder = Annotated[
    Path | None, typer.Option(help="Folder of relative paths; default the settings file's.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
StoreUri = Annotated[str, typer.Argument(help="A store, or STUDY#NAME as in study#normalized.")]


class _Bars:
    """Progress on stderr: bars with the time left on a terminal, plain lines elsewhere."""

    def __init__(self) -> None:
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=err,
            transient=True,
            disable=not err.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._shown = ""

    def __enter__(self) -> _Bars:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def __call__(self, what: str, done: int, total: int) -> None:
        if not err.is_terminal:
            if what != self._shown:
                err.print(f"{what} ({total})")
            self._shown = what
            return
        if what not in self._tasks:
            self._tasks[what] = self._bars.add_task(what, total=total)
        self._bars.update(self._tasks[what], completed=done, total=total)
        if done >= total:
            self._bars.remove_task(self._tasks.pop(what))


def _as_plain(value: object) -> Any:  # noqa: ANN401
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


def _print(content: object, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(content, indent=1, default=str))
        return
    assert isinstance(content, dict)
    table = Table(show_header=False, box=None, pad_edge=False)
    for key, value in content.items():
        text = json.dumps(value, default=str) if isinstance(value, dict | list) else str(value)
        table.add_row(f"[bold]{key}", text)
    out.print(table)


def _run(
    settings_file: Path,
    overrides: list[str] | None,
    folder: Path | None,
    stages: tuple[str, ...],
    *,
    overwrite: bool,
    as_json: bool,
) -> None:
    settings = load_settings(settings_file, tuple(overrides or ()), folder=folder)
    with _Bars() as bars:
        results = mine(settings, only=stages, overwrite=overwrite, on_progress=bars)
    _show(results, as_json=as_json)
    if "report" in stages and not as_json:
        out.print("\n".join(headline(settings.root)))


def _show(results: dict[str, Any], *, as_json: bool) -> None:
    """Print what each stage returned."""
    if as_json:
        _print({name: _as_plain(result) for name, result in results.items()}, as_json=True)
        return
    table = Table("stage", "state", "seconds", "MB", Column("written", overflow="fold"), box=None)
    for name, result in results.items():
        if isinstance(result, str):
            table.add_row(name, "written", "", "", result)
        else:
            size, seconds = f"{result.nbytes / 1e6:.1f}", f"{result.seconds:.1f}"
            table.add_row(name, result.state, seconds, size, result.uri)
    out.print(table)


@app.callback()
def _options(
    verbose: Annotated[
        int, typer.Option("-v", "--verbose", count=True, help="Log; twice for every region.")
    ] = 0,
) -> None:
    level = {0: logging.WARNING, 1: logging.INFO}.get(verbose, logging.DEBUG)
    logging.basicConfig(
        level=logging.WARNING, format="%(message)s", handlers=[RichHandler(console=err)]
    )
    logging.getLogger("dglzarr").setLevel(level)


@app.command("mine")
def mine_command(
    settings: SettingsFile,
    set_: Overrides = None,
    folder: Folder = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what will be done, and what it will take.")
    ] = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Run the whole pipeline: from files to a ranked panel and a report.

    Finished work is kept: an interrupted run goes on where it stopped.
    """
    if not dry_run:
        _run(settings, set_, folder, STAGES, overwrite=overwrite, as_json=as_json)
        return
    lines = [asdict(e) for e in estimate(load_settings(settings, tuple(set_ or ()), folder=folder))]
    if as_json:
        _print(lines, as_json=True)
        return
    columns = ("stage", "done", "disk MB", "memory MB", "minutes")
    table = Table(*columns, Column("writes", overflow="fold"), box=None)
    for line in lines:
        done = "yes" if line["is_done"] else "no"
        numbers = (f"{line['nbytes'] / 1e6:.0f}", f"{line['memory_nbytes'] / 1e6:.0f}")
        table.add_row(line["name"], done, *numbers, f"{line['seconds'] / 60:.1f}", line["writes"])
    out.print(table)
    total = sum(line["nbytes"] for line in lines if not line["is_done"])
    left = sum(line["seconds"] for line in lines if not line["is_done"])
    out.print(f"Still to do: {total / 1e9:.2f} GB on disk, about {left / 60:.1f} minutes.")


@app.command("grow")
def grow_command(
    settings: SettingsFile, set_: Overrides = None, folder: Folder = None, as_json: AsJson = False
) -> None:
    """Add the new training sources of the settings to a finished study.

    They are normalized with the frozen reference, checked for duplicates against everything,
    scored, and become visible at once; nothing old is rewritten.
    """
    loaded = load_settings(settings, tuple(set_ or ()), folder=folder)
    with _Bars() as bars:
        results = grow(loaded, on_progress=bars)
    _show(results, as_json=as_json)
    if not as_json:
        done = drift_lines(loaded.root) if results else ["Nothing to add: all sources are known."]
        out.print("\n".join(done))


@app.command("refit")
def refit_command(
    settings: SettingsFile, set_: Overrides = None, folder: Folder = None, as_json: AsJson = False
) -> None:
    """Mine a grown study anew with all its sources in one segment."""
    loaded = load_settings(settings, tuple(set_ or ()), folder=folder)
    with _Bars() as bars:
        results = refit(loaded, on_progress=bars)
    _show(results, as_json=as_json)
    if not as_json:
        out.print("\n".join(headline(loaded.root)))


def _add_stage(name: str, text: str) -> None:
    def command(
        settings: SettingsFile,
        set_: Overrides = None,
        folder: Folder = None,
        overwrite: Overwrite = False,
        as_json: AsJson = False,
    ) -> None:
        _run(settings, set_, folder, (name,), overwrite=overwrite, as_json=as_json)

    command.__doc__ = f"{text} The stages before it must have been run."
    app.command(name)(command)


for _name, _text in {
    "ingest": "Read the sources into Zarr stores and join those of role train.",
    "normalize": "Quantile-normalize the expression, fitted on the training split.",
    "dedup": "Find clusters and near-duplicates; write the keep mask and per-gene moments.",
    "train": "Train the AutoEncoder.",
    "score": "Compute DeepLIFT contributions and gene scores.",
    "select": "Rank the genes and write the panels.",
    "evaluate": "Predict the other genes from each panel on held-out samples.",
    "report": "Write the HTML report.",
}.items():
    _add_stage(_name, _text)


@app.command()
def info(store: StoreUri, as_json: AsJson = False) -> None:
    """Print schema, sizes, lineage and completeness of a store."""
    for uri in query.resolve(store):
        _print(query.describe(uri), as_json=as_json)


@app.command()
def verify(store: StoreUri, as_json: AsJson = False) -> None:
    """Read a whole store and check its values; exit status 1 when something is wrong."""
    found = [query.verify(uri) for uri in query.resolve(store)]
    for result in found:
        _print(result, as_json=as_json)
    if any(result["problems"] for result in found):
        raise typer.Exit(1)


@app.command("query")
def query_command(
    store: StoreUri,
    gene: Annotated[list[str] | None, typer.Option(help="Gene or symbol; repeatable.")] = None,
    sample: Annotated[list[str] | None, typer.Option(help="Sample; repeatable.")] = None,
    top: Annotated[int, typer.Option(help="Without --gene: the best-scored genes.")] = 20,
) -> None:
    """Print values of chosen genes or samples as a tab-separated table."""
    frame = query.table(store, genes=gene or (), samples=sample or (), top=top)
    typer.echo(frame.to_csv(sep="\t", float_format="%.6g"), nl=False)


@app.command()
def simulate(
    folder: Annotated[Path, typer.Argument(help="Folder to write the study into.")],
    n_samples: Annotated[int, typer.Option(help="Samples.")] = 1800,
    n_genes: Annotated[int, typer.Option(help="Genes.")] = 1200,
    seed: Annotated[int, typer.Option(help="Seed.")] = 0,
) -> None:
    """Write a study with planted landmark genes as genuine GEO, GCTX and GCT files."""
    path = write_study(folder, n_samples=n_samples, n_genes=n_genes, seed=seed)
    out.print(f"Run: dglzarr mine {path}")


def guarded(call: Callable[[], object]) -> int:
    """Return the exit status of a call: 0, 2 for wrong settings, 1 for any other known error."""
    try:
        call()
    except ConfigError as error:
        return _complain(error, 2)
    except (DglzarrError, OSError) as error:
        return _complain(error, 1)
    return 0


def _complain(error: Exception, status: int) -> int:
    if logging.getLogger("dglzarr").level in (logging.INFO, logging.DEBUG):
        err.print_exception()
    sys.stderr.write(f"{error}\n")
    return status


def main() -> None:
    """Run the command line."""
    sys.exit(guarded(app))
