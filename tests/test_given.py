"""An empty argument, as a variable of a shell that is not set leaves it, is not passed over."""

import subprocess
import sys
from pathlib import Path

import pytest

from dglzarr.cli import check_given
from dglzarr.errors import ConfigError

PROGRAM = Path(sys.executable).with_name("dglzarr")


@pytest.mark.parametrize(
    ("arguments", "place"),
    [
        (["query", "study", "--by", ""], "--by"),
        (["query", "study", "--by="], "--by"),
        (["panel", "study", "--exclude", "", "--size", "3"], "--exclude"),
        (["query", ""], "argument"),
        ([""], "argument"),
    ],
)
def test_check_given__refuses_what_is_empty(arguments, place):
    with pytest.raises(ConfigError, match=rf"^{place}: expected a value, got an empty one"):
        check_given(arguments)


@pytest.mark.parametrize(
    "arguments",
    [[], ["query", "study", "--label", "tissue="], ["mine", "a.toml", "--set", "seed=1", "--json"]],
)
def test_check_given__lets_through_what_is_not(arguments):
    check_given(arguments)


def test_command__an_empty_argument_ends_it():
    done = subprocess.run(
        [PROGRAM, "query", "study", "--by", ""], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr == "--by: expected a value, got an empty one. Leave it out.\n"
    assert done.stdout == ""
