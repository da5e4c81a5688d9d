"""Stores by HTTP: whole objects and ranges, of one store or of none."""

import json
import os
import shutil
import time
from pathlib import Path

import pytest

from dglzarr.storage.store import read_attributes
from tests.builders import set_attributes
from tests.serve import studies

SHARD = "normalized.zarr/expression/c/0/0"


@pytest.fixture(scope="module")
def shard(original):
    return (original / "segments/0000" / SHARD).read_bytes()


def data(served, path, **options):
    return served.get(f"/data/study/{path}", **options)


def test_index__lists_finished_stores_at_addresses_that_answer(served):
    rows = served.get("/data/study").json()["stores"]
    assert [row["schema"] for row in rows] == [
        "expression", "normalized", "samples", "contributions", "scores", "landmarks", "evaluation",
    ]  # fmt: skip
    for row in rows:
        assert row["url"].startswith("http://localhost/data/study/")
        for path in (row["path"], row["pinned"]):
            attributes = data(served, f"{path}/zarr.json").json()["attributes"]
            assert attributes["dglzarr_schema"] == row["schema"]


@pytest.mark.parametrize(
    ("asked", "part"),
    [
        ("bytes=0-0", slice(0, 1)),
        ("bytes=100-199", slice(100, 200)),
        ("bytes=-20", slice(-20, None)),
        ("bytes=500-", slice(500, None)),
        ("bytes=10-99999999999", slice(10, None)),
        ("bytes=-99999999999", slice(0, None)),
    ],
)
def test_range__as_asked(served, shard, asked, part):
    answer = data(served, SHARD, headers={"range": asked}, status=206)
    start, stop, _ = part.indices(len(shard))
    assert answer.content == shard[part]
    assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/{len(shard)}"
    assert answer.headers["content-length"] == str(stop - start)
    assert answer.headers["accept-ranges"] == "bytes"
    head = served.client.head(f"/data/study/{SHARD}", headers={"range": asked})
    assert (head.status_code, head.content) == (206, b"")
    assert head.headers["content-length"] == str(stop - start)


@pytest.mark.parametrize(
    "asked", ["", "bytes=0-1,5-6", "rows=0-1", "bytes=a-b", "bytes=-", "bytes=1-2-3", "bytes 0-1"]
)
def test_range__what_is_no_single_one_gets_all(served, shard, asked):
    assert data(served, SHARD, headers={"range": asked}).content == shard


@pytest.mark.parametrize("asked", ["bytes=999999999-", "bytes=5-4", "bytes=-0"])
def test_range__beyond_the_end(served, shard, asked):
    answer = data(served, SHARD, headers={"range": asked}, status=416)
    assert answer.headers["content-range"] == f"bytes */{len(shard)}"


def test_metadata__ranges_of_it_too(served):
    whole = data(served, "scores.zarr/zarr.json").content
    answer = data(served, "scores.zarr/zarr.json", headers={"range": "bytes=3-9"}, status=206)
    assert answer.content == whole[3:10]
    consolidated = json.loads(whole)["consolidated_metadata"]["metadata"]
    assert {"score", "gene", "latent_score"} <= {*consolidated}
    assert "objects" not in consolidated
    assert answer.headers["content-length"] == "7"


@pytest.mark.parametrize("path", [SHARD, "scores.zarr/zarr.json", "study.json"])
def test_tags__what_is_known_is_not_sent_again(served, path):
    tag = data(served, path).headers["etag"]
    for known in (tag, f'"x", {tag}', f"W/{tag}", "*"):
        answer = data(served, path, headers={"if-none-match": known}, status=304)
        assert (answer.content, answer.headers["etag"]) == (b"", tag)
    assert data(served, path, headers={"if-none-match": '"other"'}).content
    headers = {"if-range": '"other"', "range": "bytes=0-1"}
    assert len(data(served, path, headers=headers).content) > 2
    headers["if-range"] = tag
    assert len(data(served, path, headers=headers, status=206).content) == 2


@pytest.mark.parametrize("path", [SHARD, "scores.zarr/zarr.json", "study.json"])
def test_tags__another_than_is_expected_is_not_sent(served, path):
    tag = data(served, path).headers["etag"]
    for expected in (tag, f'"x", {tag}', "*"):
        assert data(served, path, headers={"if-match": expected}).content
    for expected in ('"other"', f"W/{tag}", ""):
        answer = data(
            served, path, headers={"if-match": expected, "range": "bytes=0-1"}, status=412
        )
        assert tag in answer.text


@pytest.mark.parametrize(
    "path",
    [
        "../../../etc/passwd",
        "..%2f..%2f..%2fetc/passwd",
        "%2e%2e/%2e%2e/etc/passwd",
        "scores.zarr/../report.html",
        "scores.zarr/%2e%2e/report.html",
        "scores.zarr/..%5c..%5creport.html",
        "scores.zarr//etc/passwd",
        "/etc/passwd",
        "scores.zarr/",
        "scores.zarr/nothing",
        "scores.zarr/score",
        "scores.zarr/score/c/%00",
        "scores.zarr/" + "a" * 5000,
        "nothing.zarr/zarr.json",
        "report.html",
        "study.lock",
        "scores.zarrx/zarr.json",
        "models/seed-0/weights.npz",
    ],
)
def test_other_places__are_not_there(served, path):
    answer = served.client.get(f"/data/study/{path}")
    assert answer.status_code in (307, 404) or path == "scores.zarr/", (path, answer.text[:99])
    assert "root:" not in answer.text
    assert "Traceback" not in answer.text


def test_links__out_of_a_store_are_not_followed(serve, root):
    secret = root.parent / "secret"
    secret.write_text("secret", encoding="utf-8")
    (root / "scores.zarr" / "score" / "leak").symlink_to(secret)
    (root / "scores.zarr" / "score" / "x.partial").write_text("half", encoding="utf-8")
    os.mkfifo(root / "scores.zarr" / "score" / "pipe")
    (root / "figures").symlink_to(root.parent)
    served = serve(root)
    for name in ("leak", "x.partial", "pipe"):
        data(served, f"scores.zarr/score/{name}", status=404)
    served.get("/s/study/report/figures/secret", status=404)


def test_store_being_made__is_not_there(serve, root):
    served = serve(root)
    set_attributes(root / "scores.zarr", complete=False)
    assert "no finished store" in data(served, "scores.zarr/zarr.json", status=404).text
    names = [row["schema"] for row in served.get("/data/study").json()["stores"]]
    assert "scores" not in names


def test_store_removed_while_served(serve, root):
    served = serve(root)
    assert data(served, SHARD).content
    served.json("/gene?name=TP53")
    shutil.rmtree(root / "segments" / "0000" / "normalized.zarr")
    data(served, SHARD, status=404)
    answer = served.get("/api/study/expression?name=TP53", status=503)
    assert "is being changed" in answer.json()["error"]
    assert answer.headers["retry-after"]
    assert served.json("/gene?name=TP53")["features"]  # what is in memory is of the state before


def replace(root, name):
    """Another store of the same name, as refit makes it."""
    old = read_attributes(str(root / f"{name}.zarr"))["store_id"]
    set_attributes(root / f"{name}.zarr", store_id=old[::-1])
    return old


def test_replaced_store__is_gone_for_who_opened_the_old(serve, root):
    served = serve(root)
    data(served, "scores.zarr/zarr.json")
    data(served, "scores.zarr/score/zarr.json")
    old = replace(root, "scores")
    for path in ("scores.zarr/score/zarr.json", "scores.zarr/score/c/0"):
        assert "has been replaced" in data(served, path, status=410).text
    data(served, f"scores.zarr@{old}/score/zarr.json", status=410)
    data(served, f"scores.zarr@{old}/zarr.json", status=410)
    data(served, "scores.zarr/zarr.json")  # opened again
    data(served, "scores.zarr/score/zarr.json")
    data(served, f"scores.zarr@{old[::-1]}/score/zarr.json")


def test_grown_study__old_segments_stay_and_the_short_name_says_which(serve, root):
    served = serve(root)
    first = data(served, SHARD).content
    studies.grow(root)
    assert data(served, f"segments/0000/{SHARD}").content == first
    answer = data(served, "normalized.zarr/zarr.json", status=410)
    assert "segments/0000/normalized.zarr and segments/0001/normalized.zarr" in answer.text
    rows = served.get("/data/study").json()["stores"]
    paths = [row["path"] for row in rows if row["schema"] == "normalized"]
    assert paths == [f"segments/{s}/normalized.zarr" for s in ("0000", "0001")]


def test_file_that_is_replaced_while_it_is_sent__is_the_one_that_was_opened(serve, root, shard):
    served = serve(root)
    path = root / "segments/0000" / SHARD
    with served.client.stream("GET", f"/data/study/{SHARD}") as answer:
        other = path.with_name("new")
        other.write_bytes(b"x" * len(shard))
        other.replace(path)
        assert answer.read() == shard


def test_streams__close_their_files(served):
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        data(served, SHARD)
        data(served, SHARD, headers={"range": "bytes=0-9"}, status=206)
        data(served, SHARD, headers={"range": "bytes=99999999-"}, status=416)
        data(served, SHARD, headers={"if-match": '"other"'}, status=412)
        served.client.head(f"/data/study/{SHARD}")
    time.sleep(0.1)
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 2
