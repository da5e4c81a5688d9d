"""The names for notebooks: they run the kernels of the stages on arrays in memory."""

import ast
import inspect
import textwrap
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

import dglzarr
import dglzarr.query
import dglzarr.testing
from dglzarr.kernels import deeplift, duplicates, quantile

API = Path(__file__).parent / "data" / "api.txt"


@pytest.fixture
def matrix(rng):
    return rng.normal(8, 2, (20, 15))


def test_names__are_the_kernels():
    assert dglzarr.quantile_normalize is quantile.quantile_normalize
    assert dglzarr.find_near_duplicates is duplicates.find_near_duplicates
    assert dglzarr.deeplift_contributions is deeplift.deeplift_contributions


@pytest.mark.parametrize(
    ("name", "positional", "keywords"),
    [
        ("quantile_normalize", ["matrix"], {"ties": "midrank", "reference": None}),
        ("find_near_duplicates", ["matrix"], {"threshold": 1.0, "rule": "greedy"}),
        ("deeplift_contributions", ["layers", "samples", "reference"], {}),
        ("open", ["uri"], {}),
        ("predict", ["bundle", "measured"], {"scale": "quantile", "max_missing": 0.1}),
        ("open_study", ["root"], {"aliases": ""}),
    ],
)
def test_signatures(name, positional, keywords):
    parameters = inspect.signature(getattr(dglzarr, name)).parameters
    assert list(parameters)[: len(positional)] == positional
    given = {n: p.default for n, p in parameters.items() if p.kind is p.KEYWORD_ONLY}
    assert keywords.items() <= given.items()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("ties", ["midrank", "tie-mean", "dgex"])
def test_quantile_normalize__dtype_and_distribution(ties, dtype, matrix):
    before = matrix.astype(dtype)
    found = dglzarr.quantile_normalize(before.copy(), ties=ties)
    assert found.dtype == dtype
    expected = np.sort(before.astype("float64"), axis=1).mean(axis=0)
    np.testing.assert_allclose(
        np.sort(found, axis=1), np.tile(expected, (20, 1)), rtol=1e-6 if dtype == "float32" else 0
    )
    np.testing.assert_array_equal(np.argsort(found, axis=1), np.argsort(before, axis=1))


def test_quantile_normalize__frozen_reference(matrix):
    together = dglzarr.quantile_normalize(matrix)
    reference = np.sort(together[0])
    np.testing.assert_array_equal(
        dglzarr.quantile_normalize(matrix[3:7], reference=reference), together[3:7]
    )


@pytest.mark.parametrize("n_quantiles", [1, 5, 1000])
def test_quantile_normalize__reference_of_another_length(matrix, n_quantiles):
    reference = np.linspace(2.0, 3.0, n_quantiles) ** 3
    found = dglzarr.quantile_normalize(matrix, reference=reference.tolist())
    share = matrix.argsort(axis=1).argsort(axis=1) / (matrix.shape[1] - 1)
    expected = np.interp(share, np.linspace(0, 1, n_quantiles), reference)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_quantile_normalize__reference_refused(matrix):
    with pytest.raises(ValueError, match="quantile reference: expected ascending values"):
        dglzarr.quantile_normalize(matrix, reference=[2.0, 1.0])


def test_find_near_duplicates__is_a_keep_mask(matrix):
    repeated = np.vstack([matrix, matrix[3] + 1e-3, matrix[5]])
    keep = dglzarr.find_near_duplicates(repeated)
    assert keep.dtype == bool
    assert keep.shape == (22,)
    assert np.flatnonzero(~keep).tolist() == [20, 21]
    assert dglzarr.find_near_duplicates(repeated, threshold=1e-6).sum() == 21


def test_deeplift_contributions__sum_to_the_difference(rng, matrix):
    layers = [
        (rng.normal(size=(15, 6)), rng.normal(size=6), "sigmoid"),
        (rng.normal(size=(6, 3)), rng.normal(size=3), "sigmoid"),
    ]
    reference = matrix.mean(axis=0)
    found = dglzarr.deeplift_contributions(layers, matrix, reference)
    assert found.shape == (20, 15, 3)

    def forward(x):
        for kernel, bias, _ in layers:
            x = 1 / (1 + np.exp(-(x @ kernel + bias)))
        return x

    np.testing.assert_allclose(
        found.sum(axis=1), forward(matrix) - forward(reference), rtol=1e-9, atol=1e-12
    )


def test_errors__are_what_callers_may_expect():
    assert issubclass(dglzarr.ConfigError, (dglzarr.DglzarrError, ValueError))
    assert issubclass(dglzarr.SourceError, ValueError)
    assert issubclass(dglzarr.SchemaError, ValueError)
    assert issubclass(dglzarr.StoreError, OSError)
    for name in ("ConfigError", "SourceError", "SchemaError", "StoreError"):
        assert issubclass(getattr(dglzarr, name), dglzarr.DglzarrError)


def signature(function):
    """Parameters, defaults and types as they are written, whatever the version of Python."""
    (node,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
    return f"({ast.unparse(node.args)}) -> {ast.unparse(node.returns)}"


def public_signatures():
    """Every public name with its parameters, defaults and types, a line each."""
    lines = []
    for module in (dglzarr, dglzarr.query, dglzarr.testing):
        for name in sorted(module.__all__):
            found, place = getattr(module, name), f"{module.__name__}.{name}"
            if inspect.isfunction(found):
                lines.append(f"{place}{signature(found)}")
            elif not inspect.isclass(found):
                lines.append(f"{place} = {get_args(found)}")
            else:
                bases = ", ".join(base.__name__ for base in found.__bases__)
                lines.append(f"{place}({bases})")
                lines += [
                    f"{place}.{member}{signature(value)}"
                    for member, value in sorted(inspect.getmembers(found, inspect.isfunction))
                    if not member.startswith("_")
                ]
    return lines


def test_signatures__are_those_of_the_release():
    """A change is told in CHANGELOG.md, then written: API.write_text of these lines."""
    assert public_signatures() == API.read_text(encoding="utf-8").splitlines()
