"""The networks and their training; the only folder that imports keras."""

import os
from typing import Literal

os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # TensorFlow takes a whole GPU otherwise

Device = Literal["auto", "cpu", "gpu"]
