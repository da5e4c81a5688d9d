"""How large a study is, and the memory that each of its steps takes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dglzarr.evaluation.sketch import SKETCH_ROWS
from dglzarr.kernels.scale import FROM_ZERO
from dglzarr.sources.identifiers import read_gene_list
from dglzarr.sources.peek import is_lazy, peek_size
from dglzarr.storage.declare import SHARD_SAMPLES, shard_samples

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dglzarr.settings import Settings
    from dglzarr.stages.ingest import SourceFile

IMPORTS_NBYTES = 4e8
KERAS_NBYTES = 9e8
N_COMPONENTS = 128


@dataclass(frozen=True)
class Scale:
    """How large a study will be: counts, and bytes of what is held in memory."""

    settings: Settings
    sources: tuple[SourceFile, ...]
    sizes: dict[str, tuple[int, int]] = field(repr=False)
    n_samples: int = 0
    n_genes: int = 0

    @classmethod
    def of(cls, settings: Settings, sources: Sequence[SourceFile]) -> Scale:
        """Return the scale of a study from the heads of its files."""
        sizes = {s.raw: peek_size(s.path, s.options.reading()) for s in sources}
        train = [sizes[source.raw] for source in sources if source.options.role == "train"]
        probes = settings.ingest.probes
        n_genes = len(read_gene_list(probes)) if probes else min(genes for _, genes in train)
        n_samples = sum(samples for samples, _ in train)
        return cls(settings, tuple(sources), sizes, n_samples, n_genes)

    def _values(self, source: SourceFile) -> float:
        n_samples, n_genes = self.sizes[source.raw]
        return float(n_samples * n_genes)

    @property
    def linked(self) -> float:
        """Values that are joined from their own file."""
        return sum(self._values(s) for s in self.sources if _is_linked(s))

    @property
    def copied(self) -> float:
        """Values that are copied to a raw store."""
        return sum(self._values(s) for s in self.sources) - self.linked

    @property
    def largest_whole(self) -> float:
        """Values of the largest source that is in memory at once."""
        held = (s for s in self.sources if _is_held_whole(s, self.sizes[s.raw][0]))
        return max((self._values(source) for source in held), default=0)

    @property
    def cells(self) -> float:
        """Values of the joined matrix."""
        return float(self.n_samples * self.n_genes)

    @property
    def shard_nbytes(self) -> float:
        """Bytes of a shard of the matrix."""
        return 4.0 * self.n_genes * self.shard

    @property
    def shard(self) -> int:
        """Samples of a shard."""
        asked = self.settings.ingest.shard_samples or shard_samples(self.n_samples)
        return min(asked, self.n_samples)

    @property
    def region_nbytes(self) -> float:
        """Memory of a worker that holds a region."""
        return IMPORTS_NBYTES + 3 * self.shard_nbytes

    @property
    def sketch_nbytes(self) -> float:
        """Bytes of the sketch that panels are selected on."""
        return 4.0 * self.n_genes * min(SKETCH_ROWS, self.n_samples)

    @property
    def weights(self) -> int:
        """Weights of the network, without biases."""
        asked = self.settings.train
        return 2 * (self.n_genes * asked.hidden + asked.hidden * asked.n_latent)

    @property
    def n_chosen(self) -> int:
        """Panels of selectors."""
        return 1 + len(self.settings.select.selectors)

    @property
    def n_panels(self) -> int:
        """Panels of all kinds."""
        n_published = len(self.settings.evaluate.panels)
        return self.n_chosen + self.settings.select.n_random + n_published

    @property
    def latent_nbytes(self) -> float:
        """Bytes of the sums by latent unit and gene."""
        return 8.0 * self.n_genes * self.settings.train.n_latent


def memory_of(scale: Scale) -> dict[str, float]:
    """Return the memory of the largest process of each step."""
    n_genes, region = scale.n_genes, scale.region_nbytes
    sums = 8.0 * scale.settings.select.n_landmarks * n_genes
    fed = _fed_nbytes(scale)
    return {
        "ingest": max(region, IMPORTS_NBYTES + 8 * scale.largest_whole),
        "join": region,
        "normalize": region,
        "dedup": region,
        "train": KERAS_NBYTES + 16.0 * scale.weights + fed,
        "encode": KERAS_NBYTES + scale.shard_nbytes,
        "reconstruct": IMPORTS_NBYTES + 8 * 4.0 * n_genes * min(2048, scale.n_samples),
        "explain": IMPORTS_NBYTES + scale.shard_nbytes + 2 * scale.latent_nbytes + 2**27,
        "score": IMPORTS_NBYTES + 3 * scale.latent_nbytes,
        "select": IMPORTS_NBYTES + 4 * scale.sketch_nbytes,
        "evaluate": region + 4 * sums,
        "group": region + 4.0 * n_genes * N_COMPONENTS * 16,
        "enrich": IMPORTS_NBYTES,
        "report": IMPORTS_NBYTES,
    }


def _fed_nbytes(scale: Scale) -> float:
    """Return the memory that training samples take, held or streamed."""
    asked = scale.settings.train
    n_rows = asked.window * asked.windows
    return min(4.0 * scale.cells, max(2.0**30, 5.0 * scale.n_genes * n_rows))


def _is_linked(source: SourceFile) -> bool:
    """Return whether a source is joined from its own file, as a GCTX in log2 is."""
    is_able = source.options.unit in (None, "log2", *FROM_ZERO)
    return source.options.role == "train" and is_able and is_lazy(source.path)


def _is_held_whole(source: SourceFile, n_samples: int) -> bool:
    """Return whether all values of a source are in memory at once; the others come by regions."""
    return n_samples <= SHARD_SAMPLES and not is_lazy(source.path)
