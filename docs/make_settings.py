"""Writes docs/settings.md from the options that stages declare; a test checks it is current."""

from pathlib import Path

from dglzarr.settings import Setting, describe_settings

TARGET = Path(__file__).with_name("settings.md")
HEADER = """\
# The settings

Generated from the options of the stages by `make docs`; edit those, not this file.

Keys of a study's TOML file; `--set section.key=value` replaces one on the command line. A key
without default may be left out, one that is required may not. *Paper* is what Kong et al. 2021
take where they state something else, or that they leave it open.
"""


def settings_markdown() -> str:
    """Return the page: a section with a table for each section of the file."""
    sections: dict[str, list[Setting]] = {}
    for setting in describe_settings():
        sections.setdefault(setting.key.rpartition(".")[0], []).append(setting)
    return "\n".join([HEADER, *(_section(name, rows) for name, rows in sections.items())])


def _section(name: str, rows: list[Setting]) -> str:
    title = f"`[[{name}]]`" if name == "sources" else f"`[{name}]`" if name else "Top level"
    head = [
        f"## {title}",
        "",
        "| Key | Values | Default | Meaning | Paper |",
        "| --- | --- | --- | --- | --- |",
    ]
    return "\n".join([*head, *map(_row, rows), ""])


def _row(row: Setting) -> str:
    default = f"`{row.default}`" if row.default and row.default != "required" else row.default
    cells = [f"`{row.key.rpartition('.')[2]}`", row.values, default, row.meaning, row.paper]
    return "| " + " | ".join(cells).replace("  ", " ") + " |"


if __name__ == "__main__":
    TARGET.write_text(settings_markdown(), encoding="utf-8")
