"""Answers that servers should not give, but do: each is overcome, or a line; never a wrong file."""

import gzip
import re

import pytest

from benchmarks.mirror import series_folder
from dglzarr.access.discover import Search, discover
from dglzarr.access.http import MOST_TEXT_NBYTES, Client, RefusedError
from dglzarr.access.options import FetchOptions
from dglzarr.settings import load_settings
from dglzarr.studies.fetch import fetch
from tests.access.scripted import scripted
from tests.access.series import matrix
from tests.access.served import in_cache

pytestmark = pytest.mark.slow
FAST = "[fetch]\nrequests_per_second = 10.0\nfirst_wait = 0.05\ntime_out = 5.0\nattempts = 2\n"
OLD = b"gene\ts1\ts2\n" + b"".join(b"g%d\t1.5\t2.25\n" % i for i in range(20_000))
NEW = OLD.replace(b".25", b".75")
MONDAY, TUESDAY = "Mon, 01 Jan 2024 00:00:00 GMT", "Tue, 02 Jan 2024 00:00:00 GMT"


def outcome(place, address):
    (place / "study.toml").write_text(f'root = "s"\n[[sources]]\nuri = "{address}"\n{FAST}')
    (found,) = fetch(load_settings(place / "study.toml"))
    assert "\n" not in found.told
    return found


def resumed(rest, **said):
    """Break off in the middle of the old file; then answer as ``rest`` says."""
    asked = []

    def answer(handler):
        asked.append(handler.first_byte)
        if len(asked) == 1:
            return 200, {**said, "Content-Length": str(len(OLD))}, OLD[: len(OLD) // 2]
        return rest(handler.first_byte) if handler.first_byte else (200, {}, NEW)

    return answer


def part_of_new(start, **said):
    return 206, {"Content-Range": f"bytes {start}-{len(NEW) - 1}/{len(NEW)}", **said}, NEW[start:]


@pytest.mark.parametrize(
    ("said", "rest"),
    [
        ({"ETag": '"a"'}, lambda at: part_of_new(at, ETag='"b"')),
        ({"Last-Modified": MONDAY}, lambda at: part_of_new(at, **{"Last-Modified": TUESDAY})),
        ({"ETag": '"a"'}, lambda at: (*part_of_new(at - 5)[:2], NEW[at - 5 :])),
        ({"ETag": '"a"'}, lambda at: (206, {"Content-Range": f"bytes {at}-9/*"}, NEW[at:])),
        ({"ETag": '"a"'}, lambda at: (206, {"Content-Type": "multipart/byteranges"}, NEW[at:])),
        ({"ETag": '"a"'}, lambda _: (416, {"Content-Range": f"bytes */{len(OLD)}"}, b"")),
        ({"ETag": '"a"'}, lambda _: (200, {"ETag": '"b"'}, NEW)),
    ],
    ids=["ETag", "Last-Modified", "start", "no-total", "multipart", "416", "whole"],
)
def test_fetch__the_rest_of_another_file_is_never_taken(place, said, rest):
    with scripted({"/a_expr.tsv": resumed(rest, **said)}) as (server, asked):
        assert outcome(place, f"{server}/a_expr.tsv").state == "fetched"
    assert len(asked) >= 2
    (path,) = (place / "cache" / "files").rglob("*.tsv")
    assert path.read_bytes() == NEW


def test_fetch__the_rest_comes_from_a_mirror_with_other_times(place):
    said = {"ETag": '"a"', "Last-Modified": MONDAY}

    def rest(at):
        bounds = f"bytes {at}-{len(OLD) - 1}/{len(OLD)}"
        return 206, {**said, "Content-Range": bounds, "Last-Modified": TUESDAY}, OLD[at:]

    with scripted({"/a_expr.tsv": resumed(rest, **said)}) as (server, asked):
        assert outcome(place, f"{server}/a_expr.tsv").state == "fetched"
    assert len(asked) == 2
    (path,) = (place / "cache" / "files").rglob("*.tsv")
    assert path.read_bytes() == OLD


@pytest.mark.parametrize(
    ("where", "told"),
    [
        ("http://example.invalid/x", r"to send to a known host by https, got http://example\.inv"),
        ("file:///etc/passwd", r"to send to a known host by https, got file://"),
        ("ftp://ftp.ncbi.nlm.nih.gov/x", r"expected an https address, got 'ftp://"),
        ("https://me:hunter2@ftp.ncbi.nlm.nih.gov/x", r"expected an address without credentials"),
        ("http://[bad/", r"expected 127.0.0.1 to send to an address, got none\. Try again later"),
        ("\xff\xfe", r"expected a file at .*, got none \(status 404\)"),
        ("/a_expr.tsv", r"expected a file, got sent on 5 times from"),
    ],
)
def test_fetch__sent_to_where_nobody_should_go(place, where, told):
    with scripted({"/a_expr.tsv": (302, {"Location": where}, b"")}) as (server, _):
        found = outcome(place, f"{server}/a_expr.tsv")
    assert found.state == "refused"
    assert re.search(told, found.told), found.told
    assert "hunter2" not in found.told


@pytest.mark.parametrize(
    "wait",
    [MONDAY, "-5", "soon", "", "Mon, 01 Jan 99999999 00:00:00 GMT", "Mon, 99 Jan 2026 99:99:99 GM"],
)
def test_fetch__a_wait_that_is_over_or_none(place, wait):
    answers = [(503, {"Retry-After": wait}, b""), (200, {}, OLD)]
    with scripted({"/a_expr.tsv": lambda _: answers.pop(0)}) as (server, _):
        assert outcome(place, f"{server}/a_expr.tsv").state == "fetched"


@pytest.mark.parametrize(
    "body",
    [b'<?xml version="1.0"?><html>', b"\xef\xbb\xbf<!DOCTYPE html>", b"<!-- busy -->\n<html>",
     b"<Error><Code>AccessDenied</Code></Error>", b'{"error":"API rate limit exceeded"}'],
)  # fmt: skip
@pytest.mark.parametrize("name", ["a_expr.tsv", "a_expr.tsv.gz"])
def test_fetch__a_message_is_no_data(place, body, name):
    with scripted({f"/{name}": (200, {}, body)}) as (server, _):
        found = outcome(place, f"{server}/{name}")
    assert re.search(r"expected data, got a web page or a message\. Look", found.told)
    assert not (place / "cache" / "files").exists()


NCBI = """<!DOCTYPE HTML PUBLIC "-//W3C//DTD HTML 3.2 Final//EN">
<html><head><title>Index of {folder}</title></head><body><h1>Index of {folder}</h1>
<pre>Name               Last modified      Size  <hr><a href="/geo/series/">Parent Directory</a>
<a href="{name}">{name}</a>   2025-01-01 10:00  5.7M  \n<hr></pre>
<a href="https://www.hhs.gov/vulnerability-disclosure-policy/index.html">HHS</a></body></html>"""


def in_chunks(page):
    return b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in (page[:99], page[99:], b""))


@pytest.mark.parametrize(
    ("page", "said", "sent"),
    [
        (NCBI, {}, bytes),
        (NCBI, {"Transfer-Encoding": "chunked"}, in_chunks),
        (NCBI, {"Content-Encoding": "gzip"}, gzip.compress),
        ('<a href="{folder}{name}">x</a>', {}, bytes),
        ('<a href="https://example.invalid{folder}{name}">x</a>', {}, bytes),  # not followed there
        ('<a href="./{name}">x</a>', {}, bytes),
        ('<a href="GSE7%5Fseries%5Fmatrix.txt.gz">x</a>', {}, bytes),
        ('<a href="http://[bad">y</a><table><td><a href="{name}">x</a></table>', {}, bytes),
    ],
    ids=["ncbi", "chunked", "packed", "path", "address", "dot", "escaped", "table"],
)
def test_fetch__listings_of_every_shape(place, monkeypatch, page, said, sent):
    file = matrix(place / "made", "GSE7")
    folder = f"/{series_folder('GSE7')}/"
    text = page.format(folder=folder, name=file.name).encode()
    answers = {folder: (200, said, sent(text)), folder + file.name: (200, {}, file.read_bytes())}
    with scripted(answers) as (server, _):
        monkeypatch.setenv("DGLZARR_GEO_URL", f"{server}/geo")
        (place / "study.toml").write_text(f'root = "s"\n[[sources]]\ngeo = "GSE7"\n{FAST}')
        (found,) = fetch(load_settings(place / "study.toml"))
    assert found.state == "fetched", found.told
    assert in_cache(place) == [file.name]


@pytest.fixture
def without_proxies(monkeypatch):
    """An environment that names no proxy, nor who is asked without one."""
    for name in ("no_proxy", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.usefixtures("place", "without_proxies")
@pytest.mark.parametrize(
    ("proxy", "told"),
    [
        ("http://me:hunter2@127.0.0.1:9", r"through the proxy 127\.0\.0\.1:9 .*connection refused"),
        ("http://127.0.0.1:none", r"got failed to parse\. Correct the address or the proxy"),
        ("other9://127.0.0.1:9", r"through the proxy other9://.* of the environment, got"),
    ],
)
def test_fetch__a_proxy_of_the_environment_is_named_without_its_password(
    place, monkeypatch, proxy, told
):
    monkeypatch.setenv("https_proxy", proxy)
    found = outcome(place, "https://example.org/a_expr.tsv")
    assert re.search(told, found.told), found.told
    assert "hunter2" not in found.told


@pytest.mark.usefixtures("place", "without_proxies")
def test_fetch__a_proxy_that_refuses(place, monkeypatch):
    refusals = {"example.org:443": (403, {}, b""), "http://127.0.0.1:1/a_expr.tsv": (407, {}, b"")}
    with scripted(refusals) as (server, asked):
        monkeypatch.setenv("https_proxy", server)
        monkeypatch.setenv("http_proxy", server)
        told = outcome(place, "https://example.org/a_expr.tsv").told
        assert re.search(r"example.org through the proxy .*got tunnel connection failed: 403", told)
        told = outcome(place, "http://127.0.0.1:1/a_expr.tsv").told
        assert re.search(r"through the proxy .*got status 407: it wants a user and a pass", told)
    assert ("CONNECT", "example.org:443") in asked


@pytest.mark.parametrize(
    ("n_bytes", "stop", "told"),
    [
        (9999, -9, "expected a page of .*, got gzip that ends too soon"),
        (MOST_TEXT_NBYTES + 1, None, "expected a page, got over 64 MiB from"),
    ],
)
def test_text__a_packed_page_that_is_not_whole(monkeypatch, n_bytes, stop, told):
    monkeypatch.setenv("no_proxy", "*")
    body = gzip.compress(bytes(n_bytes))[:stop]
    client = Client(FetchOptions(requests_per_second=10.0, first_wait=0.05, attempts=2))
    with (
        scripted({"/a": (200, {"Content-Encoding": "gzip"}, body)}) as (server, _),
        pytest.raises(RefusedError, match=told),
    ):
        client.text(f"{server}/a")


KEY = "S3CRET0123456789"


@pytest.mark.parametrize(
    ("search", "summary", "told"),
    [
        ((400, b'{"error":"API key invalid","api-key":"%s"}' % KEY.encode()), b"",
         r"take the key of NCBI_API_KEY, got status 400\. Correct or unset it"),
        ((200, b'{"error":"API key invalid"}'), b"", r"got 'API key invalid'"),
        ((200, b"bad key " + KEY.encode()), b"", r"expected JSON of esearch, got 'bad key \.\.\.'"),
        ((200, b"<?xml version='1.0'?><ERROR>x</ERROR>"), b"", r"expected JSON of esearch"),
        ((200, b'{"esearchresult": "oops"}'), b"", r"expected NCBI to search for"),
        ((200, b'{"esearchresult": {"count": "1", "webenv": "W"}}'), b"", r"NCBI to search for"),
        ((200, b'{"esearchresult": {"ERROR": "x", "errorlist": []}}'), b"", r"search .*got x"),
        (None, b'{"error": "Unable to obtain query #1"}', r"got 'Unable to obtain query #1'"),
        (None, b'{"esummaryresult": ["Empty"]}', r"expected series 1 to 1 .*got 0 of them"),
        (None, b'{"result": {"uids": ["1"], "1": {"accession": "GSE1", "n_samples": "n/a"}}}',
         r"how many samples it has, got 'GSE1' and 'n/a'"),
        (None, b'{"result": {"uids": ["1"], "1": []}}', r"expected a series and how many"),
    ],
)  # fmt: skip
def test_discover__answers_that_are_none(monkeypatch, search, summary, told):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("NCBI_API_KEY", KEY)
    found = '{"esearchresult": {"count": "1", "webenv": "W", "querykey": "1"}}'
    status, body = search or (200, found.encode())
    answers = {
        "/eutils/esearch.fcgi": (status, {}, body), "/eutils/esummary.fcgi": (200, {}, summary)
    }  # fmt: skip
    options = FetchOptions(requests_per_second=10.0, first_wait=0.05, attempts=2)
    with scripted(answers) as (server, asked):
        monkeypatch.setenv("DGLZARR_EUTILS_URL", f"{server}/eutils")
        with pytest.raises(RefusedError, match=told) as raised:
            discover(Client(options), Search(("GPL96",)))
    assert KEY not in str(raised.value) + str(asked)


def test_discover__nothing_is_found(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    body = b'{"esearchresult": {"count": "0", "idlist": [], "warninglist": {"outputmessages": []}}}'
    with scripted({"/eutils/esearch.fcgi": (200, {}, body)}) as (server, _):
        monkeypatch.setenv("DGLZARR_EUTILS_URL", f"{server}/eutils")
        assert discover(Client(FetchOptions()), Search(("GPL96",))) == []
