"""The command line: help that is enough, exit statuses, one-line errors."""

import re
from importlib.metadata import version

import pytest
import typer.main

from dglzarr.cli import GROUPS, STAGES, app, guarded
from dglzarr.errors import NO_MEMORY, ConfigError, SourceError, StoreError
from dglzarr.storage.files import told
from dglzarr.testing import write_study
from tests.cli.program import COMMANDS, OVERRIDES, one_line


@pytest.mark.parametrize("name", COMMANDS)
def test_help__tells_what_a_command_and_each_option_does(name, run):
    result = run(name, "--help")
    assert result.status == 0
    assert f"Usage: dglzarr {name}" in result.out
    assert COMMANDS[name].help
    for parameter in COMMANDS[name].params:
        assert parameter.help, f"{name} {parameter.name}"
        shown = parameter.opts[0] if parameter.opts[0].startswith("-") else parameter.name
        assert shown.lower() in result.out.lower()


def test_help__without_arguments_lists_the_commands(run):
    result = run()
    text = result.out + result.err
    assert all(re.search(rf"^\W*{name} ", text, re.MULTILINE) for name in COMMANDS)
    assert all(p.help for p in typer.main.get_command(app).params)


def test_help__each_command_stands_once_in_the_group_it_is_for(run):
    grouped = [name for names in GROUPS.values() for name in names.split()]
    assert sorted(grouped) == sorted(COMMANDS)
    text = run("--help").out
    places = [text.index(f" {group} ") for group in GROUPS]
    assert places == sorted(places)
    assert text.index(" init ") < text.index(" mine ") < places[1]


def test_help__every_stage_has_a_command():
    assert set(STAGES) < set(COMMANDS)
    for name in ("mine", "info", "verify", "query", "simulate"):
        assert name in COMMANDS


def test_version(run):
    result = run("--version")
    assert (result.status, result.out) == (0, f"dglzarr {version('dglzarr')}\n")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["nosuch"], "nosuch"),
        (["mine"], "settings"),
        (["mine", "a.toml", "--nosuch"], "--nosuch"),
        (["query", "a", "--top", "0"], "--top"),
        (["query", "a", "--top", "many"], "--top"),
        (["simulate", "x", "--n-samples", "few"], "--n-samples"),
    ],
    ids=["command", "argument", "option", "range", "type", "number"],
)
def test_usage__exit_2_and_says_what_was_wrong(arguments, named, run):
    result = run(*arguments)
    assert (result.status, result.out) == (2, "")
    assert named in result.err.lower()
    assert "Traceback" not in result.err


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.epoch=3"], r"study\.toml: train\.epoch: unknown key"),
        (["train.epochs=-3"], r"study\.toml: train\.epochs: .*got -3"),
        (["train.epochs"], r"--set 'train\.epochs': expected section\.key=value"),
        (['sources=[{uri="nosuch/*.txt"}]'], r"sources\.0\.uri: no such file: .*nosuch/\*\.txt"),
    ],
    ids=["key", "value", "override", "source"],
)
@pytest.mark.parametrize("command", ["mine", "ingest", "report"])
def test_wrong_settings__exit_2_in_one_line(command, overrides, message, tiny, run):
    given = [part for override in overrides for part in ("--set", override)]
    result = run(command, tiny, *OVERRIDES, *given)
    assert result.status == 2
    assert re.search(message, one_line(result))
    assert not (tiny.parent / "study").exists()


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["mine", "{tmp}/nosuch.toml"], 2, r"nosuch\.toml: cannot be read: No such file"),
        (["mine", "{tmp}/nosuch.toml", "--dry-run"], 2, r"nosuch\.toml: cannot be read"),
        (["info", "{tmp}/nosuch.zarr"], 1, r"nosuch\.zarr: no such store"),
        (["verify", "{tmp}/nosuch.zarr"], 1, r"nosuch\.zarr: no such store"),
        (["query", "{tmp}/nosuch.zarr"], 1, r"nosuch\.zarr: no such store"),
        (["info", "{tmp}#normalized"], 1, r"no study here .* Run 'dglzarr mine'"),
        (["info", "{study}#units"], 1, r"expected a store of expression, .* got 'units'"),
        (
            ["query", "{study}", "--latent", "99"],
            2,
            r"latent: expected a unit from 0 to \d+, got 99",
        ),
        (["query", "{study}#landmarks", "--gene", "NOPE"], 2, r"expected a gene .* got 'NOPE'"),
        (["query", "{study}#normalized", "--sample", "x"], 2, r"samples .* got \['x'\]"),
        (["query", "{study}#landmarks", "--sample", "x"], 2, r"has no samples to choose from"),
        (["simulate", "{tmp}/new", "--n-samples", "3"], 2, r"n_samples: expected 40 to"),
        (["normalize", "{alone}", *OVERRIDES], 1, r"expression\.zarr: no such store\. Run the"),
    ],
)
def test_errors__one_line_on_stderr(arguments, status, message, tmp_path, study, run):
    alone = write_study(tmp_path / "alone", n_samples=40, n_genes=60)
    places = {"tmp": tmp_path, "study": study, "alone": alone}
    result = run(*(a.replace("{", "{0[").replace("}", "]}").format(places) for a in arguments))
    assert result.status == status
    assert re.search(message, one_line(result))


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ConfigError("study.toml: wrong"), 2),
        (SourceError("a.txt, line 3: wrong"), 1),
        (StoreError("a.zarr: wrong"), 1),
        (OSError(28, "No space left on device"), 1),
    ],
    ids=["config", "source", "store", "disk"],
)
def test_guarded__status_and_line(error, status, capsys):
    def call():
        raise error

    assert guarded(call) == status
    assert capsys.readouterr().err == f"{error}\n"


def test_guarded__no_memory_is_one_line(tmp_path, capsys):
    def call():
        raise MemoryError

    def step():
        with told(str(tmp_path / "scores.zarr")):
            call()

    assert [guarded(call), guarded(step)] == [1, 1]
    first, second = capsys.readouterr().err.splitlines()
    assert first == f"dglzarr: {NO_MEMORY}"
    assert second == f"{tmp_path}/scores.zarr: cannot be written: {NO_MEMORY}"


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("can't start new thread"),
        ImportError("libtensorflow_cc.so.2: failed to map segment from shared object"),
    ],
)
def test_guarded__no_memory_by_another_name(error, capsys):
    def call():
        raise error

    assert guarded(call) == 1
    assert capsys.readouterr().err == f"dglzarr: {NO_MEMORY}\n"


def test_guarded__what_is_not_expected_is_not_hidden():
    with pytest.raises(ZeroDivisionError):
        guarded(lambda: 1 / 0)
    assert guarded(lambda: None) == 0


def test_verbose__adds_the_traceback(tmp_path, run):
    result = run("-v", "info", tmp_path / "nosuch.zarr")
    assert result.status == 1
    assert "Traceback" in result.err
    assert "no such store" in result.err.splitlines()[-1]
