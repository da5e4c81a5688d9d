"""What a claim finds at a target, and that asking changes nothing."""

import shutil
from pathlib import Path

import pytest
import zarr

from dglzarr.errors import SchemaError, StoreError
from dglzarr.storage import claims, files, store
from dglzarr.storage.schemas import EXPRESSION
from tests.builders import KnownStore, digests, set_attributes, shard, times


def test_claim__nothing_there_is_new_and_writes_nothing(study):
    assert study.claim().state == "new"
    assert not Path(study.uri).exists()


def test_claim__empty_folder_is_new(study):
    Path(study.uri).mkdir()
    assert study.claim().state == "new"
    study.complete()


def test_claim__begun_is_resumed(study):
    assert study.create().claim().state == "resumed"


def test_claim__finished_is_unchanged(study):
    before = store.read_attributes(study.complete().uri)
    assert study.claim().state == "unchanged"
    assert store.read_attributes(study.uri) == before


def test_claim__version_of_the_package_does_not_matter(study):
    set_attributes(study.complete().uri, dglzarr_version="0.0.1")
    assert study.claim().state == "unchanged"


@pytest.mark.parametrize("finished", [False, True], ids=["begun", "finished"])
def test_claim__other_parameters_are_refused(study, finished):
    study.create(parameters={"seed": 1, "ties": "midrank"})
    if finished:
        study.write_missing().finish()
    message = (
        r"raw\.zarr: was made with other parameters: seed: 1 -> 2\. Replace it \(--overwrite\)"
    )
    with pytest.raises(StoreError, match=message):
        study.claim(parameters={"seed": 2, "ties": "midrank"})
    assert store.is_complete(study.uri) is finished


def test_claim__at_most_five_parameters_are_shown(study):
    study.create(parameters={f"p{i}": 0 for i in range(7)})
    with pytest.raises(StoreError, match="p4: 0 -> 1; and 2 more") as error:
        study.claim(parameters={f"p{i}": 1 for i in range(7)})
    assert "p5" not in str(error.value)


def test_claim__an_added_parameter_is_another_parameter(study):
    study.create(parameters={"seed": 1})
    with pytest.raises(StoreError, match="ties: none -> 'midrank'"):
        study.claim(parameters={"seed": 1, "ties": "midrank"})


def test_claim__other_inputs_are_refused(study, tmp_path):
    old, new = (KnownStore(tmp_path / f"{name}.zarr").complete().uri for name in ("old", "new"))
    study.create(inputs={"source": old})
    message = r"was made from other inputs: source: old\.zarr -> new\.zarr\. Replace"
    with pytest.raises(StoreError, match=message):
        study.claim(inputs={"source": new})
    with pytest.raises(StoreError, match=r"other: none -> old\.zarr; source: old\.zarr -> none"):
        study.claim(inputs={"other": old})


def test_claim__a_moved_input_is_the_same_input(study, tmp_path):
    old = KnownStore(tmp_path / "old.zarr").complete().uri
    study.create(inputs={"source": old})
    moved = str(shutil.move(old, tmp_path / "moved.zarr"))
    assert study.claim(inputs={"source": moved}).state == "resumed"


def test_claim__overwrite_removes_another_store(study):
    study.create(parameters={"seed": 1}).write_missing().finish()
    before = times(study.uri)
    assert study.claim(parameters={"seed": 2}, overwrite=True).state == "new"
    assert times(study.uri) == before, "it stands until another is created"
    study.create(parameters={"seed": 2}, overwrite=True)
    assert not shard(study.uri, 0).exists()
    assert store.read_attributes(study.uri)["parameters"] == {"seed": 2}


def test_claim__overwrite_keeps_an_equal_store(study):
    study.complete()
    assert study.claim(overwrite=True).state == "unchanged"


def test_claim__other_schema_is_refused(study):
    KnownStore(study.uri, EXPRESSION).complete()
    with pytest.raises(StoreError, match="dglzarr_schema: 'expression' -> 'raw'"):
        study.claim()


def test_claim__other_version_is_refused(study):
    set_attributes(study.complete().uri, dglzarr_schema_version=0)
    with pytest.raises(StoreError, match=r"dglzarr_schema_version: 0 -> \d+\. Replace"):
        study.claim()


@pytest.mark.parametrize("overwrite", [False, True])
def test_claim__what_a_newer_version_wrote_is_refused_and_kept(study, overwrite):
    set_attributes(study.complete().uri, dglzarr_schema_version=99, dglzarr_version="9.0.0")
    before = digests(study.uri)
    with pytest.raises(SchemaError, match=r"was written by dglzarr 9\.0\.0.*Upgrade this dglzarr"):
        study.claim(overwrite=overwrite)
    assert digests(study.uri) == before


@pytest.mark.parametrize("overwrite", [False, True])
def test_claim__foreign_group_is_refused_and_kept(study, overwrite):
    zarr.create_array(study.uri + "/a", shape=(3,), dtype="f4")
    zarr.open_group(study.uri, mode="a")
    partial = Path(study.uri, "a", "c.partial")
    partial.touch()
    with pytest.raises(StoreError, match="expected a dglzarr store, got a foreign Zarr group"):
        study.claim(overwrite=overwrite)
    assert Path(study.uri, "a", "zarr.json").exists()
    assert partial.exists()


def test_claim__killed_while_writing_the_first_file_is_new(study):
    partial = Path(study.uri, "zarr.0123456789abcdef.partial")
    partial.parent.mkdir()
    partial.touch()
    assert study.claim().state == "new"
    study.create()
    assert study.claim().state == "resumed"
    assert not partial.exists()


@pytest.mark.parametrize("overwrite", [False, True])
def test_claim__other_files_are_refused_and_kept(study, overwrite):
    thesis = Path(study.uri, "thesis.txt")
    thesis.parent.mkdir()
    thesis.write_text("years of work")
    with pytest.raises(StoreError, match="expected a dglzarr store or nothing, got other files"):
        study.claim(overwrite=overwrite)
    assert thesis.read_text() == "years of work"


def test_claim__a_file_is_refused(study):
    Path(study.uri).touch()
    with pytest.raises(StoreError, match="got other files"):
        study.claim()


def test_claim__half_created_is_removed(study):
    begun = {"dglzarr_schema": "raw", "created": "", "complete": False}
    zarr.open_group(study.uri, mode="w-", zarr_format=3, attributes=begun)
    with pytest.raises(StoreError, match="not complete"):
        store.open_store(study.uri)
    assert study.claim().state == "new"
    study.create()
    assert study.claim().state == "resumed"


@pytest.mark.parametrize("n_steps", range(1, 12, 2))
def test_create_store__killed_while_creating_starts_anew(study, monkeypatch, n_steps):
    steps = iter(range(n_steps))

    def create_some(*args):
        next(steps)
        return create_array(*args)

    create_array = store._create_array
    monkeypatch.setattr(store, "_create_array", create_some)
    try:
        study.create()
    except RuntimeError:
        pass
    except StopIteration:
        assert study.claim().state == "new"
    monkeypatch.undo()
    if study.claim().state == "new":
        study.create()
    study.write_missing().finish()
    assert (store.open_store(study.uri)["expression"].to_numpy() == study["expression"]).all()


def test_claim__killed_while_removing_starts_anew(study, monkeypatch):
    study.create(parameters={"seed": 1}).write_missing().finish()
    filesystem, _ = files.open_filesystem(study.uri)
    remove = type(filesystem).rm
    calls = iter(range(1))

    def remove_once(self, *args, **kwargs):
        try:
            next(calls)
        except StopIteration:
            raise KeyboardInterrupt from None
        return remove(self, *args, **kwargs)

    monkeypatch.setattr(type(filesystem), "rm", remove_once)
    with pytest.raises(KeyboardInterrupt):
        study.create(parameters={"seed": 2}, overwrite=True)
    monkeypatch.undo()
    assert not store.is_complete(study.uri)
    assert study.claim(parameters={"seed": 2}).state == "new"


def test_claim__sweeps_partial_files(study):
    study.create().write_missing()
    partial = shard(study.uri, 1).with_name("0.0123456789abcdef.partial")
    shard(study.uri, 1).rename(partial)
    assert [r.index for r in store.missing_regions(study.uri)] == [1]
    assert study.claim().state == "resumed"
    assert not partial.exists()
    assert shard(study.uri, 0).exists()


# ---------------------------------------------------------------- asking


def asked(study, **options):
    given = {"inputs": {}, "parameters": {}, **options}
    return store.check_claim(study.uri, [study.spec], **given)


def test_check_claim__changes_nothing(study):
    study.create(parameters={"seed": 1}).write_missing().finish()
    shard(study.uri, 1).unlink()
    partial = shard(study.uri, 1).with_name("0.0123456789abcdef.partial")
    partial.touch()
    before = times(study.uri)
    assert asked(study, parameters={"seed": 1}).state == "resumed"
    claim = asked(study, parameters={"seed": 2})
    assert claim.state == "refused"
    assert list(map(str, claim.differences)) == ["seed: 1 -> 2"]
    assert times(study.uri) == before


def test_check_claim__of_nothing_reads_no_input(study):
    assert asked(study, inputs={"source": "absent.zarr"}).state == "new"


def test_check_claim__a_changed_file_is_told_by_its_setting(study, tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("probe gene")
    study.create(inputs={"annotation": str(path)})
    names = {"annotation": "ingest.annotation"}
    assert asked(study, inputs={"annotation": str(path)}, names=names).state == "resumed"
    path.write_text("probe another")
    claim = asked(study, inputs={"annotation": str(path)}, names=names)
    assert [str(d) for d in claim.differences] == ["ingest.annotation: a.txt was changed"]
    claim = asked(study, names=names)
    assert [str(d) for d in claim.differences] == ["ingest.annotation: a.txt -> none"]
    assert claim.refusal().startswith(f"{study.uri}: was made from other inputs: ingest.annotation")


def test_check_claim__a_list_that_became_a_file_is_one_difference(study, tmp_path):
    (tmp_path / "forced.txt").write_text("TP53")
    study.create(parameters={"forced": ["MYC"]})
    claim = asked(study, inputs={"forced": str(tmp_path / "forced.txt")})
    assert [str(d) for d in claim.differences] == ["forced: ['MYC'] -> forced.txt"]


def test_check_claim__order_of_inputs_counts(study, tmp_path):
    a, b = (KnownStore(tmp_path / f"{name}.zarr").complete().uri for name in "ab")
    study.create(inputs={"source.a": a, "source.b": b})
    claim = asked(study, inputs={"source.b": b, "source.a": a})
    assert [str(d) for d in claim.differences] == [
        "order of the inputs: a.zarr, b.zarr -> b.zarr, a.zarr"
    ]


def test_check_claim__damage_is_a_difference_of_a_complete_target(study):
    claim = asked(study.complete(), damage=lambda _: "weights changed")
    assert (claim.state, str(claim.differences[0])) == ("refused", "weights changed")
    assert asked(study, damage=lambda _: "").state == "unchanged"


def test_as_now__a_lineage_of_the_first_release():
    """Inputs had no roles, a model was a parameter, two parameters had other names."""
    found = {
        "inputs": [{"uri": "n.zarr", "store_id": "1"}, {"uri": "s.zarr", "store_id": "2"}],
        "parameters": {"model_id": "m", "shard_length": 16, "gene_space": "list"},
    }
    wanted = {
        "inputs": [
            {"role": "source", "uri": "n.zarr", "store_id": "1"},
            {"role": "samples", "uri": "s.zarr", "store_id": "2"},
            {"role": "model", "uri": "seed-0", "store_id": "m"},
        ],
        "parameters": {"shard_samples": 16},
    }
    got = claims.as_now(found, wanted)
    assert [(i["role"], i["store_id"]) for i in got["inputs"]] == [
        ("source", "1"), ("samples", "2"), ("model", "m"),
    ]  # fmt: skip
    assert got["parameters"] == {"shard_samples": 16}
    other = claims.as_now({**found, "inputs": [{"uri": "x.zarr", "store_id": "9"}]}, wanted)
    assert {i["role"] for i in other["inputs"]} == {"input 0", "model"}


def test_as_now__inputs_that_the_first_release_did_not_record():
    found = {"inputs": [{"uri": "n.zarr", "store_id": "1"}], "parameters": {"model_id": "m"}}
    inputs = [
        {"role": "source", "store_id": "1"},
        {"role": "model", "store_id": "m"},
        {"role": "frozen", "store_id": "2"},
    ]
    wanted = {"dglzarr_schema": "contributions", "inputs": inputs, "parameters": {}}
    got = claims.as_now(found, wanted)
    assert [(i["role"], i["store_id"]) for i in got["inputs"]] == [
        ("source", "1"), ("model", "m"), ("frozen", "2"),
    ]  # fmt: skip
    got = claims.as_now(found, {**wanted, "dglzarr_schema": "latent", "inputs": inputs})
    assert [i["role"] for i in got["inputs"]] == ["source", "model"]
    got = claims.as_now(found, {**wanted, "inputs": inputs[:1]})
    assert [i["role"] for i in got["inputs"]] == ["source"], "the model is told by an input"
