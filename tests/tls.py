"""A Dask scheduler and two workers of this machine that speak TLS alone, and their certificates."""

import subprocess
import sys
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import yaml

from tests.kills import _kill_group


def certificates(folder):
    """An authority's certificate, and one that it signed with its key; made for this test."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    def name(text):
        return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])

    def signed(subject, key, signer, is_authority):
        now = datetime.now(UTC)
        made = x509.CertificateBuilder(name("authority"), name(subject), key.public_key())
        made = made.serial_number(x509.random_serial_number())
        made = made.not_valid_before(now).not_valid_after(now + timedelta(days=1))
        limits = x509.BasicConstraints(ca=is_authority, path_length=None)
        return made.add_extension(limits, critical=True).sign(signer, hashes.SHA256())

    folder.mkdir(parents=True)
    authority, own = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    plain = serialization.NoEncryption()
    form = serialization.PrivateFormat.PKCS8
    pem = serialization.Encoding.PEM
    found = {
        "tls_ca": signed("authority", authority, authority, True).public_bytes(pem),
        "tls_cert": signed("dask", own, authority, False).public_bytes(pem),
        "tls_key": own.private_bytes(pem, form, plain),
    }
    for what, content in found.items():
        (folder / f"{what}.pem").write_bytes(content)
    return {what: str(folder / f"{what}.pem") for what in found}


@contextmanager
def secured(folder):
    """Yield the scheduler's address and the certificates; each process is one of its own."""
    own = certificates(folder / "own")
    file = folder / "scheduler.json"
    tls = ["--tls-ca-file", own["tls_ca"], "--tls-cert", own["tls_cert"], "--tls-key"]
    common = [*tls, own["tls_key"], "--scheduler-file", str(file), "--no-dashboard"]
    place = ["--host", "tls://127.0.0.1", "--local-directory", str(folder / "dask")]
    scheduler = ["scheduler", "--protocol", "tls", "--host", "tls://127.0.0.1", "--port", "0"]
    commands = [[*scheduler, *common]]
    commands += 2 * [["worker", "--nthreads", "1", "--memory-limit", "2GiB", *place, *common]]
    log = (folder / "dask.log").open("ab")
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "dask", *command],
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        for command in commands
    ]
    log.close()
    deadline = time.monotonic() + 60
    while not (file.exists() and file.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.1)
    try:
        yield yaml.safe_load(file.read_text())["address"], own
    finally:
        for process in reversed(started):
            _kill_group(process)
