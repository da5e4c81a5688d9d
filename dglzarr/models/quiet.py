"""Loads keras: it takes no more of a GPU than it needs, and writes no lines on its way.

TensorFlow tells at each import which CPU features and drivers it found, before any of its own
settings for logs counts.
"""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def loading_keras() -> Iterator[None]:
    """Let keras be loaded in the block, quietly; a setting of the environment is left."""
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # TensorFlow takes all otherwise
    with quiet_stderr():
        yield


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Hold back what is written to file descriptor 2; it is shown after all where a call fails."""
    sys.stderr.flush()
    before = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except Exception:  # not where somebody stops the program
            held.seek(0)
            os.write(before, held.read())
            raise
        finally:
            os.dup2(before, 2)
            os.close(before)
