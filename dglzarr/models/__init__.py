"""The networks and their training; the only folder that imports keras."""

from importlib.util import find_spec
from typing import Literal

from dglzarr.errors import ConfigError

Device = Literal["auto", "cpu", "gpu"]


def check_installed(*packages: str, extra: str) -> None:
    """Raise ConfigError for a package that is not installed, naming the extra that brings it."""
    for package in packages:
        if find_spec(package) is None:
            raise ConfigError(
                f"expected {package} to be installed, got none. Run: pip install 'dglzarr[{extra}]'"
            )
