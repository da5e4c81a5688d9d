"""What is counted when the house is measured, and that its table stands in docs/design.md."""

from tests.measure import BEGIN, DESIGN, END, code_lines, functions, measures, too_wide

CODE = '''"""A module."""

# a comment
TABLE = (1,
         2)  # fmt: skip


@stage(SPEC)
def make(claim, source: str, target: str) -> int:
    """Return a number.

    Over several lines.
    """

    def nested(self):
        return self  # a comment

    return [
        source, target
    ]  # fmt: skip


class Thing:
    def method(self, a: int, *rest: int, b: int, c: int = 0, **more: int) -> None: ...

    @app.command()
    def command(self, claim, a, b, c, d, e, f, g, h, i): ...
'''


def test_code_lines__neither_comments_nor_docstrings_nor_blanks():
    assert code_lines(CODE) == {4, 5, 8, 9, 15, 16, 18, 19, 20, 23, 24, 26, 27}


def test_functions__as_a_person_sees_them():
    found = {f.place: f for f in functions(CODE, "file.py")}
    make, command = found["file.py:make"], found["file.py:command"]
    assert (make.n_lines, make.n_parameters, make.n_skips) == (7, 2, 1)
    assert not make.is_typed, "the claim has no type"
    assert (found["file.py:nested"].n_lines, found["file.py:nested"].n_parameters) == (2, 0)
    method = found["file.py:method"]
    assert (method.n_parameters, method.is_typed, method.n_skips) == (3, True, 0)
    assert (command.n_parameters, command.is_command) == (10, True)


def test_too_wide__commands_aside():
    code = "def many(a, b, c, d, e, f, g, h, i): ...\n"
    assert [f.place for f in too_wide(functions(CODE + code))] == [":many"]


def test_design__has_the_table_with_every_row():
    text = DESIGN.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    rows = [line.strip("| ").split(" | ") for line in text.splitlines()[2:]]
    assert [row[0] for row in rows] == [what for what, _, _ in measures()]
    assert all(row[1] for row in rows)
