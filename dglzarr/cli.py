"""The command line: load settings, call, print. No logic of its own.

What a verb needs is imported in the verb, so that help is there at once.
"""
# ruff: noqa: PLC0415

from __future__ import annotations

import json
import logging
import sys
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from typer.core import TyperCommand

from dglzarr.errors import NO_MEMORY, NO_MEMORY_SIGNS, ConfigError, DglzarrError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from dglzarr.kernels.panel_space import PanelScale
    from dglzarr.kernels.scale import Unit
    from dglzarr.settings import Settings
    from dglzarr.sources.base import SamplesIn
    from dglzarr.storage.options import Run
    from dglzarr.studies.progress import Bars

app = typer.Typer(
    name="dglzarr",
    help="Mine landmark genes from expression compendia.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

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
    Path | None, typer.Option(help="Of relative paths, root too; default the settings file's.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
StoreOrStudy = Annotated[
    str,
    typer.Argument(help="A store, STUDY#NAME as in study#normalized, or the folder of a study."),
]

STAGES = {
    "ingest": "Read the sources into Zarr stores and join those of role train.",
    "normalize": "Quantile-normalize the expression, fitted on the training split.",
    "dedup": "Find clusters and near-duplicates; write the keep mask and per-gene moments.",
    "train": "Train the AutoEncoder.",
    "encode": "Write latent units, and how well test samples are reconstructed.",
    "score": "Compute DeepLIFT contributions and gene scores.",
    "select": "Rank the genes and write the panels.",
    "evaluate": "Predict the other genes from each panel on held-out samples.",
    "group": "Cluster labelled samples by latent units, components and panels of genes.",
    "enrich": "Test each panel for gene sets (GMT, or OBO and GAF) it holds more of than chance.",
    "report": "Write the HTML report.",
}
"""Verbs that run a part of a study, and what they do."""

GROUPS = {
    "From files to a panel": "init mine panel bundle predict",
    "Data": "fetch discover genes simulate",
    "Ask, show, hand on": "query serve export info",
    "How far to trust it": "compare stability contrast",
    "A study over years": "grow refit compact verify repair copy",
    "One stage of 'mine'": " ".join(STAGES),
}
"""Verbs by what people want, in the order of the help."""


class SettingsCommand(TyperCommand):
    """A verb whose help ends with the settings of its section, as the stage declares them."""

    def format_help(self, ctx: typer.Context, formatter: Any) -> None:  # type: ignore[override]  # noqa: ANN401
        """Write the help of the verb, then its settings."""
        super().format_help(ctx, formatter)
        write_section(str(self.name))


def write_section(name: str) -> None:
    """Print the settings that a verb takes from the file."""
    from dglzarr.settings import describe_settings

    rows = describe_settings(name)
    if not rows:
        return
    typer.echo(
        f"\nSettings of section [{name}] (--set {name}.KEY=VALUE; docs/settings.md has all):"
    )
    for row in rows:
        key = row.key.partition(".")[2]
        default = f" [default: {row.default}]" if row.default else ""
        typer.echo(f"  {key}: {row.meaning} ({row.values}){default}")


def _load(
    settings: Path, overrides: Sequence[str] | None, folder: Path | None, **asked: object
) -> Settings:
    """Return the settings of a file; of ``section_key`` what a verb's own options ask for."""
    from dglzarr.settings import load_settings

    own = [f"{name.replace('_', '.', 1)}={v}" for name, v in asked.items() if v not in ("", None)]
    return load_settings(settings, (*(overrides or ()), *own), folder=folder)


def _as_plain(value: object) -> Any:  # noqa: ANN401
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


def _print_json(content: object) -> None:
    """Print JSON, null where a number is none: NaN is no JSON."""
    text = json.dumps(content, default=lambda v: v.item() if hasattr(v, "item") else str(v))
    plain = json.loads(text, parse_constant=lambda _: None)
    typer.echo(json.dumps(plain, indent=1))


def _print_facts(content: dict[str, Any]) -> None:
    """Print one fact a line, never cut."""
    width = max(len(key) for key in content)
    for key, value in content.items():
        text = json.dumps(value, default=str) if isinstance(value, dict | list) else str(value)
        typer.echo(f"{key:{width}}  {text}")


def _print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print aligned columns, never cut."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    for row in (header, *rows):
        line = "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True))
        typer.echo(line.rstrip())


@contextmanager
def _arguments_checked() -> Iterator[None]:
    """Take a ValueError about an argument for a mistake of who typed the command."""
    try:
        yield
    except DglzarrError:
        raise
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _bars() -> Bars:
    """Return bars that show on a terminal how far work is."""
    from dglzarr.studies.progress import Bars

    return Bars()


@contextmanager
def _running(*, overwrite: bool = False) -> Iterator[Run]:
    """Yield how work is run: whether it replaces what stands, with bars that show how far it is."""
    from dglzarr.storage.options import Run

    with _bars() as bars:
        yield Run(overwrite, bars)


def _run(
    settings: Settings, steps: Sequence[str], *, overwrite: bool = False, as_json: bool = False
) -> None:
    """Run some steps of a study and print what they made."""
    from dglzarr.report.text import headline, source_lines
    from dglzarr.studies.plan import mine

    with _running(overwrite=overwrite) as run:
        results = mine(settings, only=steps, run=run)
    _show(results, as_json=as_json)
    if as_json:
        return
    if "report" in steps:
        typer.echo("\n".join(headline(settings.root)))
    elif "ingest" in steps:
        typer.echo("\n".join(source_lines(settings.root)))


def _show(results: dict[str, Any], *, as_json: bool) -> None:
    """Print what each stage returned."""
    if as_json:
        _print_json({name: _as_plain(result) for name, result in results.items()})
        return
    rows = []
    for name, result in results.items():
        if isinstance(result, str):
            rows.append((name, "written", "", "", result))
        else:
            size, seconds = f"{result.nbytes / 1e6:.1f}", f"{result.seconds:.1f}"
            rows.append((name, result.state, seconds, size, result.uri))
    _print_table(("stage", "state", "seconds", "MB", "written"), rows)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"dglzarr {version('dglzarr')}")
        raise typer.Exit


@app.callback()
def _options(
    verbose: Annotated[
        int, typer.Option("-v", "--verbose", count=True, help="Log; twice for every region.")
    ] = 0,
    _version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    from rich.logging import RichHandler

    from dglzarr.studies.progress import err

    level = {0: logging.WARNING, 1: logging.INFO}.get(verbose, logging.DEBUG)
    handler = RichHandler(console=err) if err.is_terminal else None
    logging.basicConfig(
        level=logging.WARNING,
        format="%(message)s" if handler else "%(asctime)s %(message)s",
        handlers=[handler] if handler else None,
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
    from dglzarr.studies.plan import STEPS

    loaded = _load(settings, set_, folder)
    if dry_run:
        _show_estimates(loaded, as_json=as_json)
    else:
        _run(loaded, STEPS, overwrite=overwrite, as_json=as_json)


@app.command("fetch", cls=SettingsCommand)
def fetch_command(
    settings: SettingsFile,
    set_: Overrides = None,
    folder: Folder = None,
    update: Annotated[
        bool, typer.Option("--update", help="Take what has changed upstream, too.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Ask whether anything has changed; take nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Fetch the accessions and addresses of the settings, and record them in sources.lock.

    What is recorded is the same next time, and offline: a file that has changed upstream is told
    and not taken. What cannot be had is told, and the rest goes on; the exit status is 1 where that
    is more than fetch.max_refused of all, and where --check finds a change.
    """
    from dglzarr.studies.fetch import fetch
    from dglzarr.studies.refusals import is_too_many

    if update and check:
        raise ConfigError("--update: expected one of --update and --check, got both.")
    loaded = _load(settings, set_, folder)
    with _bars() as bars:
        outcomes = fetch(loaded, update=update, check=check, on_progress=bars)
    if as_json:
        _print_json([asdict(outcome) for outcome in outcomes])
    elif not outcomes:
        typer.echo('Nothing to fetch: no source has geo, gtex or an address, as geo = "GSE10072".')
    else:
        rows = [(o.name, o.state, str(o.n_files), f"{o.nbytes / 1e6:.1f}") for o in outcomes]
        _print_table(("source", "state", "files", "MB"), rows)
        for outcome in outcomes:
            if outcome.told and not outcome.is_wrong:
                typer.echo(f"{outcome.name}: {outcome.told}")
    wrong = [outcome for outcome in outcomes if outcome.is_wrong]
    for outcome in wrong:
        sys.stderr.write(f"{outcome.told}\n")
    if wrong:
        sys.stderr.write(f"{len(wrong)} of {len(outcomes)} sources were not taken.\n")
    if wrong and (check or is_too_many(len(wrong), len(outcomes), loaded.fetch.max_refused)):
        raise typer.Exit(1)


@app.command("discover", cls=SettingsCommand)
def discover_command(  # noqa: PLR0913  (every option is an argument)
    settings: Annotated[
        Path | None,
        typer.Argument(help="Settings of a study: search as [discover] says, add to its list."),
    ] = None,
    platform: Annotated[
        list[str] | None, typer.Option(help="As GPL96; repeatable: any of them.")
    ] = None,
    organism: Annotated[str, typer.Option(help='As "Homo sapiens".')] = "",
    since: Annotated[str, typer.Option(help="First day of publication, as 2026-01-01.")] = "",
    min_samples: Annotated[int, typer.Option(help="Samples of a series, at least.", min=1)] = 1,
    rna_seq: Annotated[
        bool, typer.Option("--rna-seq", help="Only series of which NCBI has counts.")
    ] = False,
    output: Annotated[Path | None, typer.Option(help="Write the table there.")] = None,
    set_: Overrides = None,
    folder: Folder = None,
) -> None:
    """List series of GEO, the newest first: a table of which geo = "FILE" takes the accessions.

    With the settings of a study, series that they do not name yet are added to discover.list; then
    'dglzarr grow' takes them.

    NCBI is asked at most 3 times a second, 10 with NCBI_API_KEY in the environment; NCBI_EMAIL, if
    it is there, tells NCBI whom to write to.
    """
    from dglzarr.access.discover import Search, discover
    from dglzarr.access.http import Client, RefusedError
    from dglzarr.access.options import FetchOptions
    from dglzarr.errors import SourceError
    from dglzarr.storage.files import put, told
    from dglzarr.studies.discover import COLUMNS, discover_more, discovered_lines, series_rows

    search = Search(tuple(platform or ()), organism, since, min_samples, rna_seq)
    if settings is not None:
        if search != Search() or output is not None:
            raise ConfigError("discover: expected settings or options, got both. Set [discover].")
        with _bars() as bars:
            new, n_found = discover_more(_load(settings, set_, folder), on_progress=bars)
        typer.echo("\n".join(discovered_lines(new, n_found)))
        return
    try:
        search.term()
    except RefusedError as error:
        raise ConfigError(f"discover: {error}.") from error
    try:
        with _bars() as bars:
            found = discover(Client(FetchOptions()), search, on_progress=bars)
    except RefusedError as error:
        raise SourceError(f"discover: {error}.") from error
    text = "\t".join(COLUMNS) + "\n" + series_rows(found)
    if output is None:
        typer.echo(text, nl=False)
        return
    with told(str(output), remedy="Choose a writable place with --output."):
        put(output, text.encode())
    typer.echo(f"{len(found)} series written: {output}")


def _show_estimates(settings: Settings, *, as_json: bool) -> None:
    """Print how each step stands, what it will take, and why something stands in its way."""
    from dglzarr.studies.forecast import estimate

    lines = estimate(settings)
    if as_json:
        _print_json([asdict(line) for line in lines])
        return
    rows = [
        (
            line.name,
            line.state,
            line.reads,
            f"{line.nbytes / 1e6:.1f}",
            f"{line.memory_nbytes / 1e6:.0f}",
            f"{line.seconds / 60:.1f}",
            line.writes,
        )
        for line in lines
    ]
    columns = ("stage", "state", "reads", "disk MB", "memory MB", "minutes", "writes")
    _print_table(columns, rows)
    todo = [line for line in lines if line.state != "done"]
    nbytes, seconds = sum(line.nbytes for line in todo), sum(line.seconds for line in todo)
    typer.echo(f"Still to do: {nbytes / 1e6:.1f} MB on disk, about {seconds / 60:.1f} minutes.")
    for note in dict.fromkeys(note for line in lines for note in line.notes):
        typer.echo(note)
    for line in lines:
        for reason in line.reasons:
            how = f"made with {line.state}: " if line.state.startswith("other") else ""
            typer.echo(f"{line.name}: {how}{reason}")
    if any(line.reasons and line.state != "blocked" for line in lines):
        typer.echo("Run with --overwrite to replace what was made otherwise.")


@app.command("grow")
def grow_command(
    settings: SettingsFile, set_: Overrides = None, folder: Folder = None, as_json: AsJson = False
) -> None:
    """Add the new training sources of the settings to a finished study.

    They are normalized with the frozen reference, checked for duplicates against everything,
    scored, and become visible at once; nothing old is rewritten. Up to fetch.max_refused of the
    sources may be refused: they are left out, told, and listed in refused.tsv of the study.
    """
    from dglzarr.studies.grow import grow, grown_lines

    loaded = _load(settings, set_, folder)
    with _running() as run:
        results = grow(loaded, run=run)
    _show(results, as_json=as_json)
    if not as_json:
        typer.echo("\n".join(grown_lines(loaded, results)))


@app.command("refit")
def refit_command(
    settings: SettingsFile, set_: Overrides = None, folder: Folder = None, as_json: AsJson = False
) -> None:
    """Mine a grown study anew with all its sources in one segment."""
    from dglzarr.report.text import headline
    from dglzarr.studies.plan import refit

    loaded = _load(settings, set_, folder)
    with _running() as run:
        results = refit(loaded, run=run)
    _show(results, as_json=as_json)
    if not as_json:
        typer.echo("\n".join(headline(loaded.root)))


@app.command("compare", cls=SettingsCommand)
def compare_command(  # noqa: PLR0913  (every option is an argument)
    settings: SettingsFile,
    panels: Annotated[
        str, typer.Option(help="Selectors, joined by commas: compare.selectors.")
    ] = "",
    sizes: Annotated[str, typer.Option(help="Panel sizes, joined by commas: compare.sizes.")] = "",
    predictors: Annotated[
        str, typer.Option(help="Predictors, joined by commas: compare.predictors.")
    ] = "",
    folds: Annotated[
        int | None, typer.Option(help="Folds of whole series: compare.n_folds.")
    ] = None,
    set_: Overrides = None,
    folder: Folder = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Compare panels of several sizes by cross-validation over whole series.

    Each fold is a study of its own under ROOT/folds: nothing is fitted on the series that it is
    judged on. Published lists of the settings take part, whole and in random subsets, beside
    select.n_random random panels of each size; select.forced and .excluded hold. Finished work is
    kept: an interrupted run goes on where it stopped.
    """
    from dglzarr.report.comparison import COLUMNS, cells, comparison_rows, comparison_verdict
    from dglzarr.studies.cross_validate import cross_validate

    loaded = _load(
        settings,
        set_,
        folder,
        compare_selectors=_list(panels),
        compare_sizes=_numbers(sizes),
        compare_predictors=_list(predictors),
        compare_n_folds=folds,
    )
    with _running(overwrite=overwrite) as run:
        summary = cross_validate(loaded, run=run)
    rows = comparison_rows(summary.uri)
    if as_json:
        _print_json([asdict(row) for row in rows])
        return
    _print_table(COLUMNS, [cells(row) for row in rows])
    typer.echo("\n".join(comparison_verdict(rows)))
    typer.echo(f"Written: {summary.uri}")


Include = Annotated[
    str, typer.Option(help="Genes that it holds: joined by commas, or a file of them.")
]
Exclude = Annotated[str, typer.Option(help="Genes that it must not hold: the same.")]
NoControls = Annotated[bool, typer.Option("--exclude-controls", help="No control probe.")]
NoUnnamed = Annotated[
    bool, typer.Option("--exclude-unnamed", help="No feature without a symbol and an ID.")
]
NotLike = Annotated[
    str,
    typer.Option(
        help="No such genes, by symbol: ribosomal, mitochondrial, haemoglobin, noncoding, or "
        "regular expressions ('ZNF.*'), joined by commas."
    ),
]
Least = Annotated[float | None, typer.Option(help="Least mean expression, log2.")]
Most = Annotated[float | None, typer.Option(help="Largest mean expression, log2.")]
Detected = Annotated[
    float | None,
    typer.Option(help="Least share of the samples of one group with it.", min=0, max=1),
]
Feasible = Annotated[
    str, typer.Option(help="File: gene, and yes or no, whether a probe can be made.")
]
GeneSets = Annotated[str, typer.Option(help="GMT file of sets that must be on the panel.")]
AtLeast = Annotated[int, typer.Option(help="Genes of each of these sets.", min=1)]
Costs = Annotated[str, typer.Option(help="File: gene, and its cost; 1 for others.")]
Budget = Annotated[float | None, typer.Option(help="What all may cost together.")]
Start = Annotated[
    str, typer.Option(help="A file of genes, or 'mined': extended or made smaller to the size.")
]
Why = Annotated[list[str] | None, typer.Option(help="Tell of a gene; repeatable.")]


@app.command("panel")
def panel_command(  # noqa: PLR0913  (every option is an argument)
    study: Annotated[str, typer.Argument(help="The folder of a finished study.")],
    size: Annotated[int, typer.Option(help="Genes of the panel.", min=1)] = 200,
    include: Include = "",
    exclude: Exclude = "",
    exclude_controls: NoControls = False,
    exclude_unnamed: NoUnnamed = False,
    exclude_like: NotLike = "",
    min_mean: Least = None,
    max_mean: Most = None,
    min_detected: Detected = None,
    feasible: Feasible = "",
    sets: GeneSets = "",
    at_least: AtLeast = 1,
    costs: Costs = "",
    budget: Budget = None,
    start: Start = "",
    each: Annotated[bool, typer.Option("--each", help="Price each condition alone, too.")] = False,
    why: Why = None,
    output: Annotated[
        Path | None, typer.Option(help="Write the order sheet: .tsv or .csv.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Choose a panel within conditions from a finished study, and tell what they cost in error.

    Nothing is mined anew. The order sheet has a row a gene: names and IDs, why it is on the panel,
    its share of what the genes would cost, each left out in turn, the genes it serves, and what can
    be had instead, with how much more or less of its work that would do.
    """
    from dglzarr.evaluation.order import Conditions, PanelMaker, check_sheet, write_sheet
    from dglzarr.report.text import order_lines

    if output is not None:
        check_sheet(output)
    asked = Conditions(
        size=size,
        include=_genes(include),
        exclude=_genes(exclude),
        exclude_controls=exclude_controls,
        exclude_unnamed=exclude_unnamed,
        exclude_like=_parts(exclude_like),
        min_mean=min_mean,
        max_mean=max_mean,
        min_detected=min_detected,
        feasible=feasible,
        sets=sets,
        at_least=at_least,
        costs=costs,
        budget=budget,
        start=start,
    )
    maker = PanelMaker(study)
    made = maker.order(asked, each=each)
    told = [line for gene in why or () for line in maker.why(made, gene)]
    if output is not None:
        write_sheet(made, output)
    if as_json:
        prices = {name: asdict(price) for name, price in made.price.items()}
        genes = made.table.to_dict(orient="records")
        _print_json({"price": prices, "cost": made.cost, "notes": made.notes, "genes": genes})
    else:
        written = [] if output is None else [f"Written: {output}"]
        typer.echo("\n".join([*order_lines(made), *told, *written]))


@app.command("contrast")
def contrast_command(
    study: Annotated[str, typer.Argument(help="The folder of a finished study.")],
    label: Annotated[str, typer.Option(help="A label of the samples.")],
    case: Annotated[str, typer.Option(help="Its value in one group.")],
    control: Annotated[str, typer.Option(help="Its value in the other.")],
    series: Annotated[str, typer.Option(help="Only these studies, joined by commas.")] = "",
    gene_sets: Annotated[
        str, typer.Option(help="GMT file: are scores of its sets kept, too?")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Tell how well panels find the difference of two groups of held-out samples again.

    Of the genes that no panel measures: the correlation of predicted with measured log2 fold
    changes; the share of genes called different (moderated t, false discovery rate 5 %) that are
    found again among as many, and that change the same way; the correlation of changes of gene
    set scores; and whether clusters keep the groups (adjusted Rand index). Beside random panels,
    the training mean, which finds what chance finds, and the genes as they were measured.
    """
    from dglzarr.prediction.contrast import Asked, contrast
    from dglzarr.prediction.told import CONTRAST, contrast_lines

    asked = Asked(label, case, control, _parts(series), gene_sets)
    with _bars() as bars:
        found = contrast(study, asked, on_progress=bars)
    if as_json:
        table = found.table.astype(object).where(found.table.notna(), None)
        sizes = {"n_targets": found.n_targets, "n_sets": found.n_sets, "n_random": found.n_panels}
        _print_json({**sizes, "rows": table.to_dict(orient="records")})
        return
    for heading, rows in contrast_lines(found):
        typer.echo(heading)
        _print_table(CONTRAST, rows)


@app.command("bundle")
def bundle_command(
    study: Annotated[str, typer.Argument(help="The folder of a finished study.")],
    panel: Annotated[
        str, typer.Option(help="Panel of the study, an order sheet of 'panel', or a list of genes.")
    ] = "mined",
    size: Annotated[
        int | None, typer.Option(help="Instead a greedy panel of that many genes.", min=1)
    ] = None,
    output: Annotated[Path, typer.Option(help="The file to write.")] = Path("bundle.zip"),
    overwrite: Annotated[bool, typer.Option(help="Replace a file that exists.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a panel and all that predicts the other genes from it to one file, to take home.

    Ridge regression of every other gene, with a 95 % interval a gene, calibrated on series that
    are left out in turn; judged on the study's test samples. The file is a zip of a Zarr store:
    no code in it, and 'dglzarr predict' needs nothing else.
    """
    from dglzarr.prediction.make import make_bundle
    from dglzarr.prediction.told import bundle_lines

    with _running() as run:
        made = make_bundle(study, output, panel=panel, size=size, overwrite=overwrite, run=run)
    if as_json:
        _print_json(asdict(made))
    else:
        typer.echo("\n".join(bundle_lines(made)))


@app.command("predict")
def predict_command(  # noqa: PLR0913  (every option is an argument)
    bundle: Annotated[Path, typer.Argument(help="A file of 'dglzarr bundle'.")],
    measured: Annotated[
        Path, typer.Argument(help="What was measured: a table with genes in rows, GCT, GEO file.")
    ],
    output: Annotated[
        Path, typer.Option(help=".tsv (tables), .h5ad (AnnData) or .zarr (large).")
    ] = Path("predicted.tsv"),
    scale: Annotated[
        str,
        typer.Option(
            help="How values become those of the study: quantile (by ranks), shift (by one "
            "constant a sample), given (they are)."
        ),
    ] = "quantile",
    unit: Annotated[
        str, typer.Option(help="What the values are: log2, counts, intensity, tpm, rpkm or fpkm.")
    ] = "",
    max_missing: Annotated[
        float, typer.Option(help="Share of the panel that its other genes may stand in for.")
    ] = 0.1,
    samples_in: Annotated[
        str, typer.Option(help="Where the samples of a table stand: columns or rows.")
    ] = "",
    overwrite: Annotated[bool, typer.Option(help="Replace what exists.")] = False,
    as_json: AsJson = False,
) -> None:
    """Predict all other genes from a measured panel, with a 95 % interval each.

    Genes are found by label, symbol, Entrez or Ensembl ID. What is missing, extra or unlike
    training is told. A table of predictions comes with tables of the lower and upper ends, of
    genes and of samples, which say what is not to be trusted.
    """
    from dglzarr.prediction.output import write_prediction
    from dglzarr.prediction.told import prediction_lines

    with _running(overwrite=overwrite) as run:
        written = write_prediction(
            bundle,
            measured,
            output,
            scale=cast("PanelScale", scale),
            unit=cast("Unit", unit) if unit else None,
            max_missing=max_missing,
            samples_in=cast("SamplesIn", samples_in) if samples_in else None,
            run=run,
        )
    if as_json:
        samples = written.samples.reset_index().to_dict(orient="records")
        _print_json({"written": written.places, "notes": written.notes, "samples": samples})
    else:
        typer.echo("\n".join(prediction_lines(written)))


def _parts(text: str) -> tuple[str, ...]:
    """Return what commas keep apart."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _genes(text: str) -> tuple[str, ...] | str:
    """Return names joined by commas, or the file that is named."""
    return text if Path(text).is_file() else _parts(text)


def _list(text: str) -> str:
    """Return names joined by commas as a list of TOML."""
    names = _parts(text)
    return json.dumps(names) if names else ""


def _numbers(text: str) -> str:
    """Return numbers joined by commas as a list of TOML."""
    try:
        numbers = [int(part) for part in _parts(text)]
    except ValueError as error:
        raise ConfigError(f"--sizes: expected numbers joined by commas, got {text!r}.") from error
    return json.dumps(numbers) if numbers else ""


@app.command("stability", cls=SettingsCommand)
def stability_command(
    settings: SettingsFile,
    seeds: Annotated[
        int | None, typer.Option(help="Networks of different seeds, in all: stability.n_seeds.")
    ] = None,
    halves: Annotated[
        int | None, typer.Option(help="Random splits into two halves: stability.n_halves.")
    ] = None,
    set_: Overrides = None,
    folder: Folder = None,
    overwrite: Overwrite = False,
) -> None:
    """Tell how much of a panel of the highest scores is chance: other seeds, halves of the samples.

    The study must have been scored with these settings. Each replicate is trained and scored anew;
    finished ones are kept. The report shows the result.
    """
    from dglzarr.report.text import stability_lines
    from dglzarr.studies.stability import replicate

    loaded = _load(settings, set_, folder, stability_n_seeds=seeds, stability_n_halves=halves)
    with _running(overwrite=overwrite) as run:
        found = replicate(loaded, run=run)
    typer.echo("\n".join(stability_lines(found.uri)))


def _add_stage(name: str, text: str) -> None:
    def command(
        settings: SettingsFile,
        set_: Overrides = None,
        folder: Folder = None,
        overwrite: Overwrite = False,
        as_json: AsJson = False,
    ) -> None:
        from dglzarr.studies.plan import VERBS

        loaded = _load(settings, set_, folder)
        _run(loaded, VERBS.get(name, (name,)), overwrite=overwrite, as_json=as_json)

    is_first = name == next(iter(STAGES))
    command.__doc__ = text if is_first else f"{text}\n\nThe stages before it must have been run."
    app.command(name, cls=SettingsCommand)(command)


for _name, _text in STAGES.items():
    _add_stage(_name, _text)


@app.command()
def info(store: StoreOrStudy, as_json: AsJson = False) -> None:
    """Print schema, sizes, lineage and completeness of a store or bundle; of a study, its stores.

    As JSON, a store is an object, a study or STUDY#NAME a list of them.
    """
    from dglzarr import query

    if query.is_study(store):
        _list_stores(query.describe_study(store), as_json=as_json)
        return
    if store.endswith(".zip"):
        from dglzarr.prediction.bundle import describe_bundle

        found = [describe_bundle(store)]
    else:
        found = [query.describe(uri) for uri in query.resolve(store)]
    if as_json:
        _print_json(found if "#" in store else found[0])
        return
    for described in found:
        _print_facts(described)


def _list_stores(found: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        _print_json(found)
        return
    rows = []
    for line in found:
        sizes = " x ".join(f"{n} {dim}" for dim, n in line["sizes"].items())
        state = line["problem"] or ("complete" if line["complete"] else "not complete")
        numbers = (line["regions"], f"{line['nbytes'] / 1e6:.1f}", sizes)
        rows.append((line["uri"], state, *numbers))
    _print_table(("store", "state", "regions", "MB", "sizes"), rows)


@app.command()
def verify(store: StoreOrStudy, as_json: AsJson = False) -> None:
    """Read a whole store, or every store and model of a study; compare digests and check values.

    Exit status 1 when something is wrong. As JSON, a store is an object, a study or STUDY#NAME a
    list of them.
    """
    from dglzarr import query

    is_study = query.is_study(store)
    with _bars() as bars:
        found = (
            query.verify_study(store, on_progress=bars)
            if is_study
            else [query.verify(uri, on_progress=bars) for uri in query.resolve(store)]
        )
    if as_json:
        _print_json(found if is_study or "#" in store else found[0])
    else:
        for result in found:
            _print_facts({**result, "problems": "none" if not result["problems"] else ""})
            for problem in result["problems"]:
                typer.echo(f"  {problem}")
    damaged = [result["uri"] for result in found if result["problems"]]
    if damaged and len(found) > 1 and not as_json:
        typer.echo(f"{len(damaged)} of {len(found)} have problems: {', '.join(damaged)}")
    if damaged:
        raise typer.Exit(1)


@app.command()
def compact(
    root: Annotated[str, typer.Argument(help="The folder of a study.")],
    keep_hours: Annotated[
        float, typer.Option(min=0, help="How long old segments stay for readers.")
    ] = 24.0,
    as_json: AsJson = False,
) -> None:
    """Merge the segments that a study grew by into one; readers do not notice.

    The merged segment is compared with the old ones bit for bit before one new manifest lists it.
    Segments that are no longer listed are removed after --keep-hours.
    """
    from dglzarr.studies.compact import compact as compact_study
    from dglzarr.studies.compact import compacted_lines

    with _running() as run:
        done = compact_study(root, keep_hours=keep_hours, run=run)
    if as_json:
        kept = {name: until.isoformat() for name, until in done.kept.items()}
        _print_json({**done._asdict(), "kept": kept})
    else:
        typer.echo("\n".join(compacted_lines(done)))


@app.command()
def copy(
    root: Annotated[str, typer.Argument(help="The folder of a study, on a disk or in a bucket.")],
    target: Annotated[str, typer.Argument(help="Where to: a folder, or s3://BUCKET/FOLDER.")],
) -> None:
    """Copy a study to or from a bucket, or for backup, and verify the copy.

    The manifest is copied last. An interrupted copy goes on when it is run again.
    """
    from dglzarr.studies.copy import copy_study

    with _bars() as bars:
        done = copy_study(root, target, on_progress=bars)
    size = f"{done.nbytes / 1e6:,.1f} MB"
    typer.echo(f"{target}: {done.n_objects} objects, {size}, copied and verified.")


@app.command()
def repair(root: Annotated[str, typer.Argument(help="The folder of a study.")]) -> None:
    """Write a lost or damaged study.json anew, by what the study's segments were made from."""
    from dglzarr.studies.repair import repair as repair_study

    typer.echo(f"Segments of {root}: {', '.join(repair_study(root).segments)}")


Rows = Annotated[
    int | None,
    typer.Option(
        min=1, help="How many genes, best first [default: 20]; of --by: groups, the largest."
    ),
]
AliasTable = Annotated[
    str, typer.Option(help="Table of other names: HGNC's complete set, NCBI's gene_info.")
]
TableFormat = Annotated[
    str,
    typer.Option(
        "--format", help="table, tsv, csv, json or parquet. [default: table; tsv to a pipe]"
    ),
]
OutputFile = Annotated[Path | None, typer.Option(help="Write it to a file, whole or not at all.")]


@app.command("query")
def query_command(  # noqa: PLR0913  (every option is an argument)
    store: Annotated[
        str, typer.Argument(help="The folder of a study; or a store, as in study#normalized.")
    ],
    gene: Annotated[
        list[str] | None,
        typer.Option(help="Gene: label, symbol, ID; any letter case; repeatable."),
    ] = None,
    sample: Annotated[list[str] | None, typer.Option(help="Sample; repeatable.")] = None,
    top: Rows = None,
    latent: Annotated[
        int | None, typer.Option(help="The genes that move this latent unit.")
    ] = None,
    neighbours: Annotated[str, typer.Option(help="The genes most like this one.")] = "",
    by: Annotated[
        str,
        typer.Option(
            help="Expression of --gene by this label, also drawn (.svg); else its groups."
        ),
    ] = "",
    why: Annotated[
        list[str] | None,
        typer.Option(help="In words: where this gene stands, and why; repeatable."),
    ] = None,
    samples: Annotated[
        bool, typer.Option("--samples", help="Samples and labels; expression of --gene.")
    ] = False,
    series: Annotated[
        list[str] | None, typer.Option(help="Only samples of this series; repeatable.")
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option(help="Only samples of NAME=VALUE; repeatable.")
    ] = None,
    columns: Annotated[str, typer.Option(help="Only these columns: a,b; quote commas.")] = "",
    aliases: AliasTable = "",
    form: TableFormat = "",
    output: OutputFile = None,
) -> None:
    """Ask a finished study, or one of its stores: genes, neighbours, latent units, samples.

    Without a question: the first genes by rank. A table is cut to the terminal's width, with a line
    that tells what is not shown, and paged where it is longer than the terminal. --gene and --by
    with --output FILE.svg, .png or .pdf make a picture.
    """
    from dglzarr.query.asked import Asked

    chosen = "" if why else _format(form, output, draws=True)
    with _arguments_checked():
        asked = Asked(
            genes=gene or (),
            samples=sample or (),
            top=top,
            latent=latent,
            neighbours=neighbours,
            by=by,
            lists_samples=samples,
            labels=_labels(label or (), series or ()),
            aliases=aliases,
        )
        if why:
            if form or columns or output is not None:
                raise ConfigError("--why: expected no --format, --columns or --output: it is text.")
            _why(store, why, asked)
        else:
            _answer(store, asked, chosen, output, columns)


def _answer(store: str, asked: Any, form: Any, output: Path | None, columns: str) -> None:  # noqa: ANN401
    """Write the answer to a question as a table or a picture, and what is to be said of it."""
    from dglzarr.query.asked import answer, choose_columns

    if form in _PICTURES and output is not None:
        note = _draw(store, asked, form, output, columns)
    else:
        frame = choose_columns(found := answer(store, asked), columns)
        note = str(found.attrs.get("note", ""))
        _write_frame(frame, form, output)
    if note:
        sys.stderr.write(f"{note}\n")


def _why(store: str, genes: Sequence[str], asked: Any) -> None:  # noqa: ANN401
    """Print in words where genes of a study stand, and why."""
    from dglzarr.query import is_study, open_study
    from dglzarr.query.asked import Asked

    if asked != Asked(labels={}, aliases=asked.aliases):
        raise ConfigError("--why: expected no other question. Ask twice.")
    if not is_study(store):
        raise ConfigError(f"{store}: expected the folder of a study for --why.")
    typer.echo("\n".join(open_study(store, aliases=asked.aliases).dgl.why(*genes)))


def _draw(store: str, asked: Any, form: Any, output: Path, columns: str) -> str:  # noqa: ANN401
    """Write a picture of genes by a label to a file; return what is to be said of it."""
    from dglzarr.query.asked import draw
    from dglzarr.query.picture import written
    from dglzarr.storage.files import put, told

    if columns:
        raise ConfigError("--columns: expected a table, got a picture. Leave it out.")
    figure, note = draw(store, asked)
    with told(str(output), remedy="Choose a writable place with --output."):
        put(output, written(figure, form))
    typer.echo(f"Written: {output}")
    return note


def _labels(given: Sequence[str], series: Sequence[str]) -> dict[str, list[str]]:
    """Return the values that a sample may have, by label."""
    found: dict[str, list[str]] = {"series": list(series)} if series else {}
    for text in given:
        name, is_pair, value = text.partition("=")
        if not is_pair:
            raise ConfigError(f"--label: expected NAME=VALUE, got {text!r}.")
        found.setdefault(name, []).append(value)
    return found


_PICTURES = ("png", "svg", "pdf")


def _format(form: str, output: Path | None, *, draws: bool = False) -> Any:  # noqa: ANN401
    """Return the format that is meant: as told, as the file is called, or as it will be read."""
    from dglzarr.query.written import FORMATS, need_parquet

    told = form or (output.suffix[1:] if output else "")
    known = (*FORMATS, *_PICTURES) if draws else FORMATS
    if form and form not in known:
        raise ConfigError(f"--format: expected one of {', '.join(known)}, got {form!r}.")
    if told and told not in known:
        raise ConfigError(
            f"--output: expected a file of {', '.join(known)}, got '.{told}'. Name it so, or tell "
            "--format."
        )
    if draws and told in _PICTURES:
        if output is None:
            raise ConfigError(f"--format: {told} is no text. Give --output FILE.")
        return told
    found = told if told in FORMATS else "table" if sys.stdout.isatty() and not output else "tsv"
    if found == "parquet":
        need_parquet()
        if output is None and sys.stdout.isatty():
            raise ConfigError("--format: parquet is no text. Give --output FILE.")
    return found


def _write_frame(frame: Any, form: Any, output: Path | None) -> None:  # noqa: ANN401
    """Write a table to a file, to a pipe, or to a terminal, paged where it is long."""
    import pydoc
    import shutil

    from dglzarr.query.written import write_table
    from dglzarr.storage.files import put, told

    is_shown = output is None and sys.stdout.isatty()
    width, height = shutil.get_terminal_size()
    content = write_table(frame, form, width=width if is_shown else None)
    if output is not None:
        with told(str(output), remedy="Choose a writable place with --output."):
            put(output, content)
        typer.echo(f"Written: {output}, {len(frame)} rows")
    elif is_shown and content.count(b"\n") >= height:
        pydoc.pager(content.decode())
    else:
        typer.echo(content, nl=False)


@app.command("genes")
def genes_command(
    check: Annotated[Path, typer.Argument(help="A list of ids, one a line; or a table of them.")],
    settings: Annotated[
        Path | None, typer.Argument(help="Settings of a study: its tables, and what it measures.")
    ] = None,
    annotation: Annotated[
        list[str] | None,
        typer.Option(help="Table of probes, symbols and gene ids, as GPL96.txt; repeatable."),
    ] = None,
    aliases: AliasTable = "",
    set_: Overrides = None,
    folder: Folder = None,
    form: TableFormat = "",
    output: OutputFile = None,
) -> None:
    """Say for each id of a list what it is, what it became, and why.

    Probes, symbols, former symbols and aliases, Entrez and Ensembl ids with versions, and dates
    that a spreadsheet made of symbols. Ids that are not known come with the names most like them;
    they are no error.
    """
    from dglzarr.query.named import trace_list
    from dglzarr.studies.naming import names_for

    chosen = _format(form, output)
    loaded = _load(settings, set_, folder) if settings else None
    known, notes = names_for(loaded, annotation or (), aliases)
    frame, counted = trace_list(check, known)
    _write_frame(frame, chosen, output)
    for line in (*notes, counted):
        sys.stderr.write(f"{line}\n")


@app.command("serve")
def serve_command(
    study: Annotated[list[str], typer.Argument(help="Folders of studies.")],
    host: Annotated[
        str, typer.Option(help="Where to listen; elsewhere than on this machine asks for a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: any that is free.", min=0, max=65535)] = 8000,
    cache_mb: Annotated[
        int, typer.Option(help="Memory for values of genes, MB; 0 keeps none.", min=0)
    ] = 64,
    aliases: AliasTable = "",
) -> None:
    """Show studies in a browser: genes, panels, the report, and the stores for programs.

    Nothing is changed. Other machines need the token that is printed, or that of DGLZARR_TOKEN in
    the environment. Stores are at /data/STUDY for xarray.open_zarr, the same answers as JSON at
    /api.
    """
    try:
        from dglzarr.serve.run import serve
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"serve: expected {error.name} to be installed. Run: pip install 'dglzarr[serve]'"
        ) from error
    cache_nbytes = cache_mb * 10**6
    serve(study, host=host, port=port, cache_nbytes=cache_nbytes, aliases=aliases, say=_say)


def _say(line: str) -> None:
    typer.echo(line)
    sys.stdout.flush()


@app.command("export")
def export_command(
    study: Annotated[str, typer.Argument(help="The folder of a finished study.")],
    form: Annotated[
        str,
        typer.Option("--format", help="h5ad, gct, tsv, parquet or zarr; by default as --output."),
    ] = "",
    panel: Annotated[
        str, typer.Option(help="Only the genes of this panel, in its order: mined, ...")
    ] = "",
    gene: Annotated[list[str] | None, typer.Option(help="Only this gene; repeatable.")] = None,
    by_gene: Annotated[
        bool, typer.Option("--by-gene", help="Of zarr: gene by gene, for buckets.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option(help="File or folder to write. [default: STUDY.FORMAT, here]")
    ] = None,
) -> None:
    """Write the normalized expression with all labels for other programs: AnnData, GCT, R, Zarr.

    h5ad is opened by scanpy, with latent units in obsm; gct by cmapPy and Morpheus; tsv and parquet
    have a row a sample: labels, then genes; zarr is opened by xr.open_zarr. Whole or not at all.
    """
    from dglzarr.export import FORMATS, export_study

    chosen: Any = form or (output.suffix[1:] if output else "")
    if chosen not in FORMATS:
        raise ConfigError(f"--format: expected one of {', '.join(FORMATS)}, got {chosen!r}.")
    place = output or Path(f"{Path(study).resolve().name}.{chosen}")
    with _bars() as bars:
        n_samples, n_genes = export_study(
            study,
            place,
            chosen,
            panel=panel,
            genes=gene or (),
            by_gene=by_gene,
            on_progress=lambda done, total: bars("exporting", done, total),
        )
    typer.echo(f"Written: {place}, {n_samples} samples x {n_genes} genes")


@app.command()
def init(
    folder: Annotated[
        Path | None, typer.Argument(help="Folder with expression files; with --geo none is needed.")
    ] = None,
    geo: Annotated[
        list[str] | None,
        typer.Option(help="Accession of GEO, or a file of them; repeatable. They are fetched."),
    ] = None,
    platform: Annotated[
        list[str] | None, typer.Option(help="Platforms to take of these, as GPL96; repeatable.")
    ] = None,
    output: Annotated[Path, typer.Option(help="The settings file to write.")] = Path("study.toml"),
) -> None:
    """Look at files of a folder, or of accessions, and write settings for them, commented.

    Nothing is mined. A settings file that exists is not replaced. Accessions that cannot be had are
    told, and left out; then the exit status is 1.
    """
    from dglzarr.storage.buckets import ChangedError
    from dglzarr.storage.files import put, told
    from dglzarr.studies.draft import draft_settings
    from dglzarr.studies.fetch import fetch_accessions

    taken = ConfigError(f"{output}: exists. Remove it, or choose another place with --output.")
    if output.exists():
        raise taken
    if folder is None and not geo:
        raise ConfigError("init: expected a folder of files, or --geo GSE..., got neither.")
    platforms = tuple(platform or ())
    with _bars() as bars:
        fetched, refused = fetch_accessions(
            tuple(geo or ()), platforms, base=output.parent, on_progress=bars
        )
        for line in refused:
            sys.stderr.write(f"{line}\n")
        text = draft_settings(
            folder,
            base=output.parent,
            fetched=fetched,
            platforms=platforms,
            on_progress=bars,
        )
    with told(str(output), remedy="Choose a writable folder with --output."):
        try:
            put(output, text.encode(), if_absent=True)
        except ChangedError as error:
            raise taken from error
    typer.echo(text.partition("\n")[0].removeprefix("# "))
    typer.echo(f"Written: {output}. Look at it, then run: dglzarr mine {output}")
    if refused:
        sys.stderr.write(f"{len(refused)} of {len(fetched) + len(refused)} were not taken.\n")
        raise typer.Exit(1)


@app.command()
def simulate(
    target: Annotated[
        Path, typer.Argument(help="Folder of a study to write; or a .gctx file, a compendium.")
    ],
    n_samples: Annotated[int, typer.Option(help="Samples.", min=1)] = 1800,
    n_genes: Annotated[int, typer.Option(help="Genes.", min=1)] = 1200,
    seed: Annotated[int, typer.Option(help="Seed.", min=0)] = 0,
) -> None:
    """Write simulated data whose truth is known.

    A folder: a study with planted landmark genes as genuine GEO, GCTX and GCT files, and its
    settings. A .gctx file: one compendium of any size with planted duplicates, written as a
    stream; their truth stands beside it.
    """
    from dglzarr.testing import write_compendium, write_study

    sizes = {"n_samples": n_samples, "n_genes": n_genes, "seed": seed}
    with _arguments_checked(), _bars() as bars:
        if target.suffix != ".gctx":
            typer.echo(f"Run: dglzarr mine {write_study(target, **sizes)}")
            return
        path = write_compendium(
            target, **sizes, on_progress=lambda done, total: bars("simulating", done, total)
        )
        typer.echo(f"Written: {path}")


def guarded(call: Callable[[], object]) -> int:
    """Return the exit status of a call: 0, 2 for wrong settings, 1 for any other known error.

    Of one that was stopped it is 128 and the number of the signal; `end` then ends the program.
    """
    from dglzarr.studies.stopping import Stopped, stoppable

    try:
        with stoppable():
            call()
    except Stopped as stopped:
        return stopped.status
    except ConfigError as error:
        return _complain(error, 2)
    except (DglzarrError, OSError) as error:
        return _complain(error, 1)
    except (MemoryError, RuntimeError, ImportError) as error:
        if not isinstance(error, MemoryError) and not any(s in str(error) for s in NO_MEMORY_SIGNS):
            raise
        return _complain(DglzarrError(f"dglzarr: {NO_MEMORY}"), 1)
    return 0


def _complain(error: Exception, status: int) -> int:
    if logging.getLogger("dglzarr").level in (logging.INFO, logging.DEBUG):
        from dglzarr.studies.progress import err

        err.print_exception()
    sys.stderr.write(f"{error}\n")
    return status


def _group_verbs() -> None:
    """Give each verb its place in the help."""
    verbs = {v.name or v.callback.__name__: v for v in app.registered_commands if v.callback}
    app.registered_commands.clear()
    for group, names in GROUPS.items():
        for name in names.split():
            verbs[name].rich_help_panel = group
            app.registered_commands.append(verbs[name])


_group_verbs()


def check_given(arguments: Sequence[str]) -> None:
    """Refuse an empty argument: a variable of a shell that is not set asks nothing.

    Raises
    ------
    ConfigError
        Naming the option before it.
    """
    for before, text in zip(("", *arguments), arguments, strict=False):
        name, has_value, value = text.partition("=")
        if text == "" or (name.startswith("--") and has_value and value == ""):
            option = before if text == "" else name
            place = option if option.startswith("--") else "argument"
            raise ConfigError(f"{place}: expected a value, got an empty one. Leave it out.")


def main() -> None:
    """Run the command line."""
    from dglzarr.studies.stopping import end, listen

    def run() -> None:
        check_given(sys.argv[1:])
        app()

    listen()
    end(guarded(run))
