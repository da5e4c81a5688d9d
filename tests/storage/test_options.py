import pytest

from dglzarr.storage.options import Options, choice


class Rules(Options):
    section = "select"

    n: int = choice(1, "how many")
    forced: tuple[str, ...] | str = choice((), "names, or a file of them", is_path=True)


class Lists(Options):
    section = "evaluate"

    panels: dict[str, str] = choice({}, "files by name", is_path=True)


class Both(Rules, Lists):
    section = "compare"

    size: int = choice(2, "how large")
    device: str = choice("cpu", "where", is_recorded=False)


class Other(Options):
    n: int = choice(7, "something else")
    size: int = choice(8, "how large here")


def test_setting_names__a_choice_is_of_the_section_that_declares_it():
    assert Both.setting_names() == {
        "n": "select.n",
        "forced": "select.forced",
        "panels": "evaluate.panels",
        "size": "compare.size",
        "device": "compare.device",
    }


def test_of__each_choice_from_the_first_section_that_has_it():
    both = Both(n=3, size=4, device="gpu")
    assert Rules.of(both) == Rules(n=3)
    assert Both.of(both, Other()) == both
    assert Both.of(Other(), both).n == 7
    with pytest.raises(KeyError):
        Both.of(Other(), Rules())


@pytest.mark.parametrize(
    ("options", "files", "values"),
    [
        (Both(), {}, {"n": 1, "forced": [], "size": 2}),
        (Both(forced="a.txt"), {"forced": "a.txt"}, {"n": 1, "size": 2}),
        (
            Both(forced=("b", "a"), panels={"z": "z.txt", "l": "l.txt"}),
            {"panels.z": "z.txt", "panels.l": "l.txt"},
            {"n": 1, "forced": ["b", "a"], "size": 2},
        ),
    ],
)
def test_recorded__values_and_files_apart(options, files, values):
    assert options.files() == options.inputs() == files
    assert list(options.files()) == list(files)
    assert options.recorded() == values
