"""An S3 server of moto's in a process of its own, and what stands between it and its clients."""

import os
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager

BUCKET = "bucket"
KEY, SECRET = "AKIAEXAMPLE", "very-secret-key"


def environment(endpoint):
    """Return the environment in which a client finds a server."""
    return {
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_REGION": "us-east-1",
    }


@contextmanager
def server(log=subprocess.DEVNULL):
    """Yield the address of a server that holds one empty bucket."""
    command = [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    try:
        line = next(line for line in process.stderr if "Running on http" in line)
        endpoint = line.strip().rpartition(" ")[2]
        drain = subprocess.Popen(["cat"], stdin=process.stderr, stdout=log)
        make_bucket(endpoint)
        yield endpoint
    finally:
        process.terminate()
        process.wait(timeout=20)
        process.stderr.close()
        drain.wait(timeout=20)


def make_bucket(endpoint, name=BUCKET):
    request = urllib.request.Request(f"{endpoint}/{name}", method="PUT")  # noqa: S310
    for _ in range(100):
        try:
            urllib.request.urlopen(request, timeout=5).close()  # noqa: S310
            return
        except ConnectionError:
            time.sleep(0.1)
    raise AssertionError(f"{endpoint} does not answer")
