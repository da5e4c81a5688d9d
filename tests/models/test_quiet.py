import os
import subprocess
import sys

import pytest

from dglzarr.models.quiet import loading_keras, quiet_stderr


def test_quiet_stderr__holds_back_what_c_libraries_write(capfd):
    with quiet_stderr():
        os.write(2, b"noise\n")
    os.write(2, b"news\n")
    assert capfd.readouterr().err == "news\n"


def test_quiet_stderr__shows_it_where_a_call_fails(capfd):
    def fail():
        with quiet_stderr():
            os.write(2, b"the reason\n")
            raise ImportError

    with pytest.raises(ImportError):
        fail()
    assert capfd.readouterr().err == "the reason\n"


def test_loading_keras__takes_no_more_of_a_gpu_than_it_needs(monkeypatch):
    monkeypatch.delenv("TF_FORCE_GPU_ALLOW_GROWTH", raising=False)
    with loading_keras():
        assert os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] == "true"
    monkeypatch.setenv("TF_FORCE_GPU_ALLOW_GROWTH", "false")
    with loading_keras():
        assert os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] == "false"


@pytest.mark.slow
def test_loading_keras__without_a_word():
    code = (
        "from dglzarr.models.quiet import loading_keras\n"
        "with loading_keras():\n"
        "    from dglzarr.models.autoencoder import build_autoencoder\n"
        "    from dglzarr.models.options import NetworkOptions\n"
        "    build_autoencoder(4, NetworkOptions(), seed=0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""
