import os
import subprocess
import sys

import pytest

from dglzarr.models.quiet import quiet_stderr


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


@pytest.mark.slow
def test_quiet_stderr__keras_loads_without_a_word():
    code = (
        "from dglzarr.models.quiet import quiet_stderr\n"
        "with quiet_stderr():\n"
        "    from dglzarr.models.autoencoder import build_autoencoder\n"
        "    from dglzarr.models.files import AutoEncoderConfig\n"
        "    build_autoencoder(AutoEncoderConfig(n_genes=4))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""
