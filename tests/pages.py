"""What a page of docs/ tells people to type."""

import re


def blocks(page, heading):
    """The sh blocks of a section, in order."""
    section = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", page, re.DOTALL | re.MULTILINE)[1]
    found = re.findall(r"^```sh\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    assert found, heading
    return found


def inline(page, beginning):
    """The one command within the text that begins so."""
    (found,) = {code for code in re.findall(r"`([^`\n]+)`", page) if code.startswith(beginning)}
    return found
