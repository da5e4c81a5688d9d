"""Choices of networks and of how samples come to them.

They stand apart from `files`, so that what only applies a network loads no pydantic.
"""

from typing import Any, Literal, Self

from pydantic import model_validator

from dglzarr.kernels.deeplift import Activation, HiddenActivation
from dglzarr.storage.options import Options, choice

Cache = Literal["auto", "memory", "stream"]
Start = Literal["random", "components"]
PAIRED = ("relu", "softplus")
"""Activations of which a unit and its mirror image differ by their input: f(x) - f(-x) = x."""
MAX_WIDTH = 100_000
GENES_A_UNIT = 10
"""Of few genes, about so many for a latent unit: as wide a layer as the genes only copies them."""


class BatchOptions(Options):
    """How samples come to training. Where neighbours are of one series, small windows mix best."""

    batch_size: int = choice(128, "samples a step", paper="open", gt=0)
    window: int = choice(10, "neighbouring samples that are read together", gt=0)
    windows_in_memory: int | None = choice(
        None,
        "about so many windows are in memory, and those of twice as many are mixed; by default "
        "twice the batch size, at least 256",
        gt=0,
    )
    cache: Cache = choice(
        "auto",
        "memory holds the samples, stream reads them anew each epoch, auto holds up to 1 GiB; but "
        "a GPU that has memory for them holds them for both of these",
        is_recorded=False,
    )

    @property
    def windows(self) -> int:
        """About how many are in memory: by default so many as mix nearly as a full shuffle does."""
        return self.windows_in_memory or max(256, 2 * self.batch_size)

    def recorded(self) -> dict[str, Any]:
        """Return the values that belong to the lineage, the windows as their number."""
        return {**super().recorded(), "windows_in_memory": self.windows}


class NetworkOptions(Options):
    """The network: genes - hidden - latent - hidden - genes."""

    hidden: int = choice(500, "width of the outer hidden layers", gt=0, le=MAX_WIDTH)
    n_latent: int = choice(100, "width of the latent layer", gt=0, le=MAX_WIDTH)
    activation: HiddenActivation = choice(
        "relu", "activation of the hidden layers", paper="sigmoid"
    )
    latent_activation: Activation | Literal["hidden"] = choice(
        "linear", "activation of the latent layer; hidden is that of the other two", paper="hidden"
    )
    start: Start = choice(
        "components",
        "the weights before training: random ones, or those that rebuild what as many components "
        "as latent units do (spherical ones, every series of equal weight)",
        paper="random",
    )
    output: Activation = choice(
        "linear", "activation of the output; z-scores need a linear one", paper="open"
    )
    dropout: float = choice(
        0.0, "share of units that is silenced in training", paper="0.1", ge=0, lt=1
    )
    dropout_position: Literal["hidden", "input"] = choice(
        "hidden", "after each of the three hidden layers, or on the input alone", paper="open"
    )
    l2: float = choice(1e-6, "weight in the loss of the sum of squares of every kernel", ge=0)

    @model_validator(mode="after")
    def _can_start(self) -> Self:
        """Refuse components where layers cannot hold them."""
        if self.start == "random":
            return self
        n_pairs = 2 * self.n_latent
        wanted = {
            "activation": (self.activation in PAIRED, " or ".join(PAIRED)),
            "latent_activation": (self.latent_activation == "linear", "linear"),
            "output": (self.output == "linear", "linear"),
            "hidden": (self.hidden >= n_pairs, f"at least 2 x n_latent = {n_pairs}"),
        }
        for name, (fits, expected) in wanted.items():
            if not fits:
                raise ValueError(
                    f'{name}: expected {expected} with start = "components", got '
                    f'{getattr(self, name)}. Change it, or set start = "random".'
                )
        return self


class DGexOptions(Options):
    """D-GEX's network and its training: landmarks - hidden layers of tanh - targets."""

    section = "evaluate.dgex"

    hidden: int = choice(
        3000, "width of the hidden layers; D-GEX's are 3000 to 9000", gt=0, le=MAX_WIDTH
    )
    n_layers: int = choice(1, "number of hidden layers", gt=0, le=3)
    dropout: float = choice(
        0.1, "share of units that is silenced after every hidden layer", ge=0, lt=1
    )
    optimizer: Literal["adam", "momentum"] = choice(
        "adam",
        "momentum is D-GEX's: 0.5, steps of all weights but the first layer's three times as long, "
        "and the learning rate times 0.9 after an epoch in which the error on training samples "
        "rose, down to 1e-5",
    )
    learning_rate: float | None = choice(
        None,
        "to begin with; by default 1e-4 with adam, and with momentum D-GEX's: 5e-4 for one hidden "
        "layer, else 3e-4",
        gt=0,
    )
    epochs: int = choice(100, "how often each training sample is seen, at most", gt=0)
    batch_size: int = choice(200, "samples a step", gt=0)
    patience: int | None = choice(
        10,
        "it stops after so many epochs without a lower validation loss; the weights kept are those "
        "of the lowest",
        gt=0,
    )

    @property
    def step(self) -> float:
        """The learning rate to begin with."""
        if self.learning_rate is not None:
            return self.learning_rate
        if self.optimizer == "adam":
            return 1e-4
        return 5e-4 if self.n_layers == 1 else 3e-4
