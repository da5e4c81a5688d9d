"""A study as one xarray.DataTree, with the lineage of its stores."""

from __future__ import annotations

import logging
from pathlib import Path

import xarray as xr

from dglzarr.errors import StoreError
from dglzarr.query.lazy import open_parts, readable, refuse_address
from dglzarr.storage import study as studies
from dglzarr.storage.files import place_of
from dglzarr.storage.together import other_inputs

logger = logging.getLogger(__name__)


def open_study(root: str | Path, *, aliases: str | Path = "") -> xr.DataTree:
    """Return a study as one DataTree: a node for each of its stores that stands, all lazy.

    Segments of a study that has grown are joined along ``sample``; the tree stays what the
    manifest told at this moment. Attributes of a node are the lineage of its store: ``store_id``,
    and as JSON ``inputs``, ``parameters`` and ``details``; ``segments`` names each segment, and
    ``problem`` tells of a store that was made from another than stands here: a warning tells of it,
    and no question is answered by it.
    ``tree.dgl`` asks it questions: see `StudyQuestions`.

    Parameters
    ----------
    root
        Folder of the study.
    aliases
        A table of other names of genes: HGNC's complete set, or NCBI's ``gene_info``. With it a
        gene is found by its aliases, former symbols and IDs too.

    Raises
    ------
    StoreError
        When there is no study, or one of its stores is not complete or damaged.
    SchemaError
        When a store does not match its schema.

    Examples
    --------
    >>> import json
    >>> tree = open_study(study)
    >>> list(tree.children)[:4], tree["normalized"].dataset.sizes["sample"]
    (['expression', 'normalized', 'samples', 'latent'], 120)
    >>> json.loads(tree["normalized"].attrs["parameters"])["ties"]
    'midrank'
    """
    root = str(root)
    refuse_address(root)
    study = studies.open_study(root)
    nodes, made = {}, []
    for name in (*studies.SEGMENTED, *studies.WHOLE, *studies.OPTIONAL):
        uris = study.uris(name)
        if any(place_of(uri, "zarr.json").exists() for uri in uris):
            with readable(f"{root}#{name}"):
                nodes[name] = open_parts(uris)
            made += uris
    for uri, problem in other_inputs(root, made).items():
        logger.warning("%s: %s", uri, problem)
        node = nodes[place_of(uri).name.removesuffix(".zarr")]
        node.attrs["problem"] = f"{uri}: {problem}."
    if not nodes:
        raise StoreError(f"{root}: expected a study with finished stores. Run 'dglzarr mine'.")
    attributes = {"root": root, "segments": " ".join(study.segments), "aliases": str(aliases)}
    return xr.DataTree.from_dict({"/": xr.Dataset(attrs=attributes), **nodes}, name=Path(root).name)
