"""Pages say what the study says, and whatever a name holds is text."""

import csv
import io
import re
import shutil
import time
from html.parser import HTMLParser

import pytest

import dglzarr
from dglzarr.serve.guard import REPORT_POLICY
from dglzarr.storage.schemas import EVALUATION
from tests.builders import text, write_store
from tests.serve import studies
from tests.serve.studies import EVIL, GENES, N_PANEL

PATHS = [
    "", "search?q=TP53", "search", "search?q=zzz", "gene?name=TP53", "gene?name=003_at",
    "gene?name=TP53&by=series", "latent?k=1", "panel", "panel?panel=published", "compare",
    "compare?a=published&b=random-0", "order", "order?size=4&include=003_at", "data",
]  # fmt: skip


class Tags(HTMLParser):
    """Every tag of a page with its attributes, and all text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def ready(served):
    """The panel of the study is told of."""
    panel = served.json("/panel")["genes"]
    served.json("/why", params={"name": panel[0]["gene"]})
    return served


@pytest.mark.parametrize("path", PATHS)
def test_pages__hold_no_code_and_nothing_from_elsewhere(ready, path):
    answer = ready.get(f"/s/study/{path}")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert EVIL not in answer.text
    assert "<i>c</i>" not in answer.text
    found = Tags(answer.text)
    assert [attrs for tag, attrs in found.tags if tag == "script"] == [
        {"src": "/static/app.js", "defer": None}
    ]
    for _tag, attrs in found.tags:
        assert not [name for name in attrs if name.startswith("on") or name == "style"]
        for name in ("href", "src", "action"):
            assert (attrs.get(name) or "/").startswith(("/", "#")), attrs
    ids = [attrs["id"] for _, attrs in found.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    for tag, attrs in found.tags:
        if tag == "svg":
            assert attrs.get("aria-label") or attrs.get("aria-hidden")


@pytest.mark.parametrize(
    ("path", "here"), [("panel", "panel"), ("order?size=4", "order"), ("", ""), ("search", "")]
)
def test_pages__the_one_that_is_shown_is_marked_in_the_navigation(ready, path, here):
    found = Tags(ready.get(f"/s/study/{path}").text)
    marked = [attrs["href"] for _, attrs in found.tags if attrs.get("aria-current") == "page"]
    assert marked == ([f"/s/study/{here}"] if here else [])


@pytest.mark.parametrize("path", PATHS)
def test_pages__every_link_answers(ready, path):
    found = Tags(ready.get(f"/s/study/{path}").text)
    links = {attrs["href"] for tag, attrs in found.tags if tag in ("a", "link") and attrs["href"]}
    for link in sorted(links - {"#main"})[:40]:
        ready.get(link, status=307 if link == "/" else 200)


def test_home__of_one_study_is_the_study(served):
    assert served.get("/", status=307).headers["location"] == "/s/study/"


def test_home__lists_studies_that_can_be_opened_and_those_that_cannot(serve, original, root):
    (root / "segments/0000/normalized.zarr/zarr.json").unlink()
    served = serve(original, root)
    text = served.get("/").text
    names = served.app.state.shelf.names
    assert len(set(names)) == 2
    assert all(f"/s/{name}/" in text for name in names)
    assert "80 samples of 5 series, 40 genes, 3 panels" in text
    assert "It cannot be read." in text
    assert str(root) not in text


def test_gene__tells_all_of_it(ready):
    panel = [row["gene"] for row in ready.json("/panel")["genes"]]
    text = Tags(ready.get("/s/study/gene", params={"name": panel[0]}).text).text
    told = ["Rank by score", "gene 1", "Why it is on the panel", "It serves", "Instead"]
    told += ["where the panel comes first", "each left out in turn"]
    told += ["Expression over samples", "Score by tissue", "Latent programs", "Neighbours"]
    assert [one for one in told if one not in text] == []
    assert "prepared" not in text
    beside = next(gene for gene in GENES if gene not in panel)
    text = Tags(ready.get("/s/study/gene", params={"name": beside}).text).text
    assert "is not on the mined panel. The gene of the panel most like it is" in text


def test_gene__of_several_features_names_them(ready):
    text = Tags(ready.get("/s/study/gene?name=tp53").text).text
    assert "“tp53” is measured by 2 features" in text
    assert "000_at" in text
    assert "001_at" in text


def test_gene__labels_stand_as_text(ready):
    text = ready.get("/s/study/gene?name=MYC&by=tissue").text
    assert "a &#34;b&#34; &lt;i&gt;c&lt;/i&gt;" in text
    assert 'a "b" <i>c</i>' in Tags(text).text
    assert "two\nlines" in Tags(text).text
    assert text.count("<polygon") == 3


@pytest.mark.parametrize(
    "name", [EVIL, "TP35", "'\"><img src=x onerror=alert(1)>", "a\nb", "{{7*7}}"]
)
def test_unknown_gene__is_told_as_text_with_names_like_it(ready, name):
    known = name == EVIL
    answer = ready.get("/s/study/gene", params={"name": name}, status=200 if known else 404)
    assert not [t for t, _ in Tags(answer.text).tags if t in ("img", "i")]
    assert "49" not in Tags(answer.text).text or known
    if name == "TP35":
        assert '<a href="/s/study/gene?name=TP53">TP53</a>' in answer.text


def test_search__near_names(ready):
    text = ready.get("/s/study/search?q=TP35").text
    assert "No gene of this study is called so." in text
    assert "/s/study/gene?name=TP53" in text


@pytest.mark.parametrize("kind", ["tsv", "csv"])
def test_sheets__panel_and_order(ready, kind):
    separator = {"tsv": "\t", "csv": ","}[kind]
    answer = ready.get(f"/s/study/order?size=4&include=004_at&exclude=005_at&as={kind}")
    assert answer.headers["content-disposition"] == f'attachment; filename="study-order.{kind}"'
    rows = list(csv.DictReader(io.StringIO(answer.text), delimiter=separator))
    expected = ready.json("/order?size=4&include=004_at&exclude=005_at")["genes"]
    assert [row["gene"] for row in rows] == [row["gene"] for row in expected]
    assert rows[0]["gene_symbol"] == "'=1+1"  # no formula of a spreadsheet
    assert {"position", "why", "share", "serves", "instead"} <= rows[0].keys()
    answer = ready.get(f"/s/study/panel?panel=published&as={kind}")
    rows = list(csv.DictReader(io.StringIO(answer.text), delimiter=separator))
    assert [row["gene"] for row in rows] == GENES[:N_PANEL]


def test_order__wrong_conditions_are_told_in_the_form(ready):
    answer = ready.get("/s/study/order?size=4&include=TP54", status=400)
    assert "include: the study has no gene TP54" in answer.text
    assert "Did you mean TP53" in answer.text
    assert ">TP54</textarea>" in answer.text
    ready.get("/s/study/order?size=4&include=TP54&as=csv", status=400)


def test_order__conditions_that_leave_too_few_are_told_in_the_form(ready):
    answer = ready.get("/s/study/order?size=5&min_mean=30", status=400)
    assert 'name="min_mean" inputmode="decimal" value="30"' in answer.text
    assert 'role="alert"' in answer.text
    answer = ready.get("/s/study/order?as=tsv", status=400)  # of all genes, which leaves none
    assert "That cannot be answered" in answer.text


def test_order__from_a_panel_that_there_is_none_of(serve, root):
    for name in ("landmarks", "evaluation"):
        shutil.rmtree(root / f"{name}.zarr")
    answer = serve(root).get("/s/study/order?size=4&start=mined", status=404)
    assert "no panels yet" in answer.text
    assert "data-reload" not in answer.text


def test_gene__the_rest_is_there_where_contributions_are_damaged(serve, root):
    for shard in (root / "segments/0000/contributions.zarr/contribution/c").rglob("*"):
        if shard.is_file():
            shard.write_bytes(shard.read_bytes()[:20])
    answer = serve(root).get("/s/study/gene?name=MYC")
    assert "The contributions of this study are gone or damaged." in answer.text
    assert "Expression over samples" in Tags(answer.text).text


@pytest.fixture
def flat(tmp_path):
    """A study of which the gene 039_at does not vary, and a label of samples is called source."""
    root = studies.write_study(tmp_path / "study")
    shutil.rmtree(root / "segments/0000")
    values = studies.values_of()
    values[:, -1] = 7
    studies.write_segment(root / "segments/0000", values, called=("source",))
    return root


def test_gene__without_spread_is_like_none(serve, flat):
    served = serve(flat)
    assert served.json("/neighbours?name=039_at")["neighbours"] == []
    assert served.json("/why?name=039_at")["most_like"] is None
    near = served.json(f"/neighbours?name=009_at&n={len(GENES)}")["neighbours"]
    assert {row["gene"] for row in near} == {*GENES} - {"009_at", "039_at"}
    assert None not in [row["r"] for row in near]
    said = Tags(served.get("/s/study/gene?name=039_at").text).text
    assert said.count("does not vary over the kept training samples") == 2


def test_labels__called_as_the_studys_own_leave_those(serve, flat):
    groups = serve(flat).json("/expression?name=MYC&by=source")["groups"]
    assert {group["name"] for group in groups} == {*studies.SERIES}


TAKEN = ["series", "platform", "source", "split", "keep", "cluster", "duplicate_of", "sample"]


@pytest.mark.parametrize("name", [*TAKEN, "tissue"])
def test_labels__are_called_as_query_calls_them(name, serve, tmp_path):
    root = tmp_path / "study"
    root.mkdir()
    studies.write_manifest(root, ["0000"])
    studies.write_segment(root / "segments" / "0000", studies.values_of(), called=(name,))
    asked = dglzarr.open_study(root).dgl
    (own,) = asked.labels.own
    assert own == (name if name == "tissue" else f"{name}_label")
    served = serve(root)
    assert own in served.json("")["labels"]
    groups = served.json(f"/expression?name=MYC&by={own}")["groups"]
    kept = asked.by(own, keep=True).sizes().to_series().to_dict()
    assert {group["name"]: group["n"] + group["n_missing"] for group in groups} == kept


def test_sorry__near_names_that_are_no_genes_are_no_links(ready):
    said = ready.get("/s/study/panel?panel=minde", status=404).text
    assert "Did you mean mined, published, random-0?" in said


def test_compare__says_which_predicts_better(ready):
    text = Tags(ready.get("/s/study/compare?a=mined&b=published").text).text
    assert "mined predicts better" in text
    assert "published predicts better" not in text


def test_compare__of_two_series_tells_nothing(serve, root):
    shutil.rmtree(root / "evaluation.zarr")
    genes = {"gene": text(GENES), "gene_symbol": text(studies.SYMBOLS)}
    arrays = studies.evaluation_arrays(genes)
    arrays["judged_series"] = text([f"GSE{i % 2}" for i in range(30)])
    write_store(root / "evaluation.zarr", EVALUATION, arrays)
    told = Tags(serve(root).get("/s/study/compare?a=mined&b=published").text).text
    assert "fewer than 3 series" in told
    assert "cannot be told" in told
    assert "predicts better" not in told


def test_data__shows_what_to_type(ready):
    text = Tags(ready.get("/s/study/data").text).text
    assert 'xr.open_zarr("http://localhost/data/study/normalized.zarr"' in text
    assert "Bearer" not in text


def test_report__its_scripts_get_at_nothing(ready, original):
    assert ready.get("/s/study/report", status=307).headers["location"] == "/s/study/report/"
    answer = ready.get("/s/study/report/")  # where its relative links lead to what is beside it
    assert answer.content == (original / "report.html").read_bytes()
    assert answer.headers["content-security-policy"] == REPORT_POLICY
    assert "sandbox" in REPORT_POLICY
    assert "allow-same-origin" not in REPORT_POLICY
    assert ready.get("/s/study/report/panels.tsv").text == "a\tb\n"
    for other in ("study.json", "study.lock", "../study/report.html", "models/x.json", "no.tsv"):
        ready.get(f"/s/study/report/{other}", status=404)


def test_report__that_is_not_made(serve, root):
    (root / "report.html").unlink()
    served = serve(root)
    assert "no such" in served.get("/s/study/report/", status=404).text.lower()
    assert "Read the report" not in served.get("/s/study/").text


def test_sorry__is_a_page_with_a_status(served):
    answer = served.get("/s/study/latent?k=99", status=404)
    assert "That cannot be answered" in answer.text
    assert "This study has no latent unit 99" in answer.text
    assert 'role="alert"' in served.get("/s/nothing/", status=404).text
    assert "/s/nothing" not in served.get("/s/nothing/", status=404).text


def test_unforeseen_fault__is_told_to_the_terminal_alone(served, monkeypatch, caplog):
    from dglzarr.serve.answers import Answers

    def fails(*_):
        raise RuntimeError("a secret /place")

    monkeypatch.setattr(Answers, "program", fails)
    for path in ("/s/study/latent?k=1", "/api/study/programs?k=1"):
        answer = served.get(path, status=500)
        assert "secret" not in answer.text
        assert "could not be answered" in answer.text
    assert "a secret /place" in caplog.text


def test_waiting__the_rest_of_a_page_is_there(serve, root, monkeypatch):
    from dglzarr.serve.answers import Answers

    monkeypatch.setattr(Answers, "begin", lambda _: None)
    monkeypatch.setattr(Answers, "_make_likeness", lambda _: time.sleep(2))
    served = serve(root)
    text = served.get("/s/study/gene?name=TP53").text
    assert "is being prepared" in text
    assert 'data-reload="3"' in text
    assert "Expression over samples" in text
    answer = served.get("/api/study/neighbours?name=TP53", status=503)
    assert answer.headers["retry-after"] == "3"


def test_templates__fill_in_nothing_that_is_missing(ready):
    for path in PATHS:
        text = Tags(ready.get(f"/s/study/{path}").text).text
        assert not re.search(r"\bNone\b(?!\.)|\bnan\b|Undefined", text), path
    assert studies.EVIL in Tags(ready.get("/s/study/panel?panel=published").text).text
