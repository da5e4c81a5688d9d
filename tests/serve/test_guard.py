"""Who may ask: nobody without the token, nobody by another name, nobody with other methods."""

import pytest

from dglzarr.serve.guard import COOKIE, POLICY

TOKEN = "a-token-that-is-long"  # noqa: S105


@pytest.fixture
def guarded(serve, original):
    return serve(original, token=TOKEN)


@pytest.mark.parametrize(
    "path", ["/", "/s/study/", "/api", "/data/study/study.json", "/static/app.js", "/nothing"]
)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer wrong"},
        {"authorization": f"Basic {TOKEN}"},
        {"authorization": f"Bearer {TOKEN}x"},
        {"authorization": "Bearer "},
        {"cookie": f"{COOKIE}={TOKEN}"},
        {"cookie": f"{COOKIE}="},
    ],
)  # fmt: skip
def test_token__none_or_wrong(guarded, path, headers):
    answer = guarded.client.get(path, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert TOKEN not in answer.text


def test_token__as_header(guarded):
    for scheme in ("Bearer", "bearer"):
        guarded.get("/api", headers={"authorization": f"{scheme} {TOKEN}"})


def test_token__once_in_the_address_then_a_cookie(guarded):
    answer = guarded.get(f"/s/study/gene?name=TP53&token={TOKEN}", status=303)
    assert answer.headers["location"] == "/s/study/gene?name=TP53"
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert TOKEN not in cookie
    assert guarded.client.get("/api").status_code == 200  # it keeps the cookie
    guarded.client.cookies.clear()
    assert guarded.client.get(f"/api?token={TOKEN}x").status_code == 401


@pytest.mark.parametrize("path", ["//evil.example/", "/\\evil.example/", "///evil.example"])
def test_token__leads_nowhere_else(guarded, path):
    answer = guarded.client.get(f"http://localhost{path}?token={TOKEN}")
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/")
    assert answer.headers["location"][1] not in "/\\"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_methods__nothing_can_be_changed(served, method):
    for path in ("/", "/api/study/order", "/data/study/study.json", "/static/app.js"):
        answer = served.client.request(method, path)
        assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")
        assert "nothing can be changed" in answer.text
        assert ("json" in answer.headers["content-type"]) == path.startswith("/api")


@pytest.mark.parametrize(
    "path", ["/", "/api", "/data/study/study.json", "/nothing", "/static/app.css"]
)
def test_headers__of_every_answer(served, path):
    answer = served.client.get(path)
    assert answer.headers["content-security-policy"] == POLICY
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "same-origin"
    assert "unsafe" not in POLICY
    assert "access-control-allow-origin" not in answer.headers


def test_hosts__a_name_elsewhere_that_leads_here_is_refused(serve, original):
    served = serve(original, hosts=("localhost", "127.0.0.1", "[::1]"))
    for host in ("localhost", "localhost:8000", "LOCALHOST", "127.0.0.1:1", "[::1]:8000"):
        assert served.client.get("/api", headers={"host": host}).status_code == 200, host
    for host in ("evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", ""):
        assert served.client.get("/api", headers={"host": host}).status_code == 421, host


def test_questions__of_many_bytes_are_refused(served):
    answer = served.client.get("/api/study/genes?q=" + "x" * 13_000)
    assert answer.status_code == 414
    assert "longer than" in answer.json()["error"]
