"""A host that asks to wait is waited for, and others are asked meanwhile: real local servers."""

import threading
import time

from benchmarks.mirror import serving
from dglzarr.access.http import Client
from dglzarr.access.options import FetchOptions


def test_requests__a_busy_host_holds_up_no_other(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    for name in ("a", "b"):
        (tmp_path / name).write_text(f"page {name}")
    client = Client(FetchOptions(requests_per_second=10.0, first_wait=0.05, attempts=3))
    found = []
    with serving(tmp_path, {"/a": ["busy", ""]}) as busy, serving(tmp_path) as idle:
        thread = threading.Thread(target=lambda: found.append(client.text(f"{busy.address}/a")))
        thread.start()
        while not busy.asked:
            time.sleep(0.01)
        time.sleep(0.1)
        assert [client.text(f"{idle.address}/b") for _ in range(3)] == ["page b"] * 3
        assert client.text(f"{busy.address}/b") == "page b"
        thread.join(30)
    first, *later = [at for at, _, _ in busy.asked]
    assert found == ["page a"]
    assert len(later) == 2
    assert min(later) - first >= 1, "nobody asks the busy one for the second that it wants"
    assert max(at for at, _, _ in idle.asked) < min(later), "the other is asked meanwhile"
