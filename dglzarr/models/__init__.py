"""The networks and their training; the only folder that imports keras."""

import os

os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # TensorFlow takes a whole GPU otherwise
