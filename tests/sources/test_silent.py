"""Tables as people write them of which something else was read, in silence."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from dglzarr.errors import ConfigError, SourceError
from dglzarr.sources import Reading, read_source
from dglzarr.sources.identifiers import name_genes, read_annotation_table, read_panel
from dglzarr.sources.scaled import find_scale
from dglzarr.sources.study_genes import GeneRule, study_genes
from dglzarr.sources.turned import known_symbols
from dglzarr.stages.ingest import SourceFile, SourceOptions, ingest_all, raw_labels
from dglzarr.studies.early import check_cohorts

RNG = np.random.default_rng(3)
SYMBOLS = sorted(known_symbols())[1000:1060]
SAMPLES = [f"S{i}" for i in range(6)]
LOG2 = RNG.uniform(2, 14, (60, 6)).round(3)
ROWS = RNG.permutation(60)[:40]
CHOSEN = [SYMBOLS[row] for row in ROWS]


def chosen_rows(name):
    """A frame of which rows were left out and sorted: its index has the numbers they had."""
    frame = pd.DataFrame(LOG2, columns=SAMPLES)
    frame.insert(0, name, SYMBOLS)
    return frame.iloc[ROWS]


@pytest.mark.parametrize("name", ["gene_id", "Gene Symbol", "symbol"])
@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_read_source__numbers_of_chosen_rows_are_no_ids(tmp_path, name, form):
    frame = chosen_rows(name)
    path = tmp_path / f"a.{form}"
    frame.to_csv(path) if form == "csv" else frame.to_parquet(path)
    source = read_source(path)
    assert (source.genes, source.samples) == (CHOSEN, SAMPLES)
    assert "numbers of rows" in [one.reason for one in source.left_out]
    np.testing.assert_array_equal(source.read(0, 6), LOG2[ROWS].T.astype(np.float32))


@pytest.mark.parametrize("name", ["No.", "S.No", "Serial", "line"])
def test_read_source__numbers_of_rows_under_any_name_beside_ids(tmp_path, name):
    frame = pd.DataFrame(LOG2, columns=SAMPLES)
    frame.insert(0, "symbol", SYMBOLS)
    frame.insert(0, name, range(1, 61))
    frame.to_csv(tmp_path / "a.csv", index=False)
    assert read_source(tmp_path / "a.csv").genes == SYMBOLS
    frame.rename(columns={name: "probe"}).to_csv(tmp_path / "b.csv", index=False)
    assert read_source(tmp_path / "b.csv").genes[:2] == ["1", "2"]


def test_read_source__a_pandas_index_of_parquet_is_no_sample(tmp_path):
    frame = chosen_rows("gene_id").reset_index()[["gene_id", "index", *SAMPLES]]
    frame.to_parquet(tmp_path / "a.parquet", index=False)
    assert read_source(tmp_path / "a.parquet").samples == SAMPLES


def test_read_source__entrez_ids_beside_symbols_stay(tmp_path):
    frame = chosen_rows("symbol")
    frame.index = np.arange(99_990, 99_990 + len(frame))
    frame.to_csv(tmp_path / "a.csv")
    source = read_source(tmp_path / "a.csv")
    assert (source.genes[0], source.gene_symbol) == ("99990", CHOSEN)


def test_name_genes__labels_that_mean_other_genes_in_each_source():
    numbers = [str(i) for i in range(20)]
    own = [(numbers, SYMBOLS[:20]), (numbers, SYMBOLS[20:40])]
    with pytest.raises(SourceError, match=r"one symbol a label, .* for 20 of 20 .*numbers of rows"):
        name_genes(numbers, "probe", None, own)
    renamed = [*SYMBOLS[:18], "NEW1", "NEW2"]
    found = name_genes(numbers, "probe", None, [(numbers, SYMBOLS[:20]), (numbers, renamed)])
    assert found[0] == renamed


def test_name_genes__labels_that_are_symbols():
    assert name_genes(SYMBOLS, "probe", None, [(SYMBOLS, [""] * 60)])[0] == SYMBOLS
    assert set(name_genes(["1_at", "2_at"], "probe", None, [(["1_at"], [""])])[0]) == {""}


@pytest.mark.parametrize("form", ["csv", "parquet", "gct"])
def test_find_scale__columns_of_probabilities(tmp_path, form):
    frame = pd.DataFrame(LOG2, columns=SAMPLES, index=pd.Index(SYMBOLS, name="id"))
    for sample in SAMPLES[:3]:
        frame[f"d_{sample}"] = RNG.uniform(size=60)
    path = tmp_path / f"a.{form}"
    if form == "parquet":
        frame.to_parquet(path)
    elif form == "csv":
        frame.to_csv(path)
    else:
        frame.insert(0, "Description", SYMBOLS)
        table = frame.rename_axis("NAME").to_csv(sep="\t")
        path.write_text(f"#1.2\n60\t9\n{table}")
    with pytest.raises(SourceError, match=r"got 3 of 9 columns between 0 and 1, as p-values are"):
        find_scale(read_source(path), None)
    assert find_scale(read_source(path), None, is_chosen=True).scale == "log2"


def test_ingest__one_sample_of_another_scale_among_many(tmp_path):
    """Few samples of many are looked at for the scale; all are when they are copied."""
    values = 2 ** RNG.uniform(4, 14, (60, 300))
    values[:, 10] = np.log2(values[:, 10])
    frame = pd.DataFrame(values, index=SYMBOLS, columns=[f"P{i}" for i in range(300)])
    frame.to_csv(tmp_path / "a.csv")
    path = tmp_path / "a.csv"
    with pytest.raises(SourceError, match=r"a\.csv: .* got 1 of \d+ samples seen log2 \('P10'\)"):
        ingest_all([SourceFile(str(path), str(tmp_path / "raw" / "a.zarr"))])
    asked = SourceOptions(unit="intensity")
    ingest_all([SourceFile(str(path), str(tmp_path / "raw" / "b.zarr"), asked)])


def test_find_scale__low_fpkm_and_its_logarithm(tmp_path):
    values = RNG.gamma(0.4, 6, (1500, 6)).round(4) + 0.0001
    values[:2] = 120.5
    values[:, 3:] = np.log2(values[:, 3:] + 1)
    frame = pd.DataFrame(values, index=[f"g{i}" for i in range(1500)], columns=SAMPLES)
    frame.to_csv(tmp_path / "a.csv", index_label="id")
    with pytest.raises(
        SourceError, match=r"3 of 6 samples seen log2 \('S3', 'S4', 'S5'\), and oth"
    ):
        find_scale(read_source(tmp_path / "a.csv"), None)


def test_find_scale__whole_numbers_of_shallow_counts(tmp_path):
    frame = pd.DataFrame(RNG.poisson(1, (60, 6)), index=SYMBOLS, columns=SAMPLES)
    frame.to_csv(tmp_path / "a.csv")
    found = find_scale(read_source(tmp_path / "a.csv"), None)
    assert (found.scale, found.unit) == ("raw", "counts")


@pytest.mark.parametrize("text", ["Gen,S0\nZZZ3,7,99\nZZZ4,8,5\n", "Locus_tag,S0,S1\ng,257,7,99\n"])
def test_read_source__decimal_commas_under_a_header_of_ids(tmp_path, text):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(
        SourceError, match=r"line 1: expected a name for each column.*whole numbers"
    ):
        read_source(tmp_path / "a.csv")
    source = read_source(tmp_path / "a.csv", reading=Reading(value_columns=("*",)))
    assert source.samples == text.splitlines()[0].split(",")


def test_read_source__points_that_part_thousands(tmp_path):
    rows = [("g1", "1.206", "15"), ("g2", "640", "2.031"), ("g3", "12", "99")]
    path = tmp_path / "a.csv"
    path.write_text("id;S0;S1\n" + "".join(f"{';'.join(row)}\n" for row in rows))
    with pytest.raises(
        SourceError, match=r"got numbers such as 1\.206 beside .* Write 1206; where"
    ):
        read_source(path)
    path.write_text(path.read_text() + "g4;0.5;1\n")
    assert read_source(path).read(0, 1)[0, 0] == np.float32(1.206)


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_read_source__facts_before_genes_are_labels(tmp_path, form):
    frame = pd.DataFrame(LOG2.T, columns=SYMBOLS)
    frame.insert(0, "sample", SAMPLES)
    facts = {"passage": range(6), "os_months": [1.5] * 6, "tissue": ["skin"] * 6}
    for place, (name, cells) in enumerate(facts.items(), start=1):
        frame.insert(place, name, cells)
    path = tmp_path / f"a.{form}"
    frame.to_csv(path, index=False) if form == "csv" else frame.to_parquet(path, index=False)
    source = read_source(path, reading=Reading(samples_in="rows"))
    assert (source.genes, source.samples) == (SYMBOLS, SAMPLES)
    assert set(source.labels) == set(facts)


def test_raw_labels__cells_that_say_nothing_are_empty(tmp_path):
    (tmp_path / "a.csv").write_text("id,S0,S1,S2,S3\n" + "g1,1,2,3,4\n" * 1)
    (tmp_path / "s.csv").write_text("sample,tissue\nS0,NA\nS1,skin\nS2,n/a\nS3,nan\n")
    source = read_source(tmp_path / "a.csv", sample_sheet=tmp_path / "s.csv")
    assert raw_labels(source)["sample_label"][:, 0].tolist() == ["", "skin", "", ""]


def read_facts(path, frame, **reading):
    frame.to_csv(path, index=False)
    return read_source(path, reading=Reading(**reading))


def test_find_scale__a_row_of_facts_does_not_make_log2_raw(tmp_path):
    names = sorted(known_symbols())[:3000]
    frame = pd.DataFrame(RNG.uniform(0.1, 14, (3000, 8)), columns=[f"S{i}" for i in range(8)])
    frame.insert(0, "id", names)
    frame.loc[0] = ["AGE", *range(30, 38)]
    source = read_facts(tmp_path / "a.csv", frame)
    assert (len(source.genes), find_scale(source, None).scale) == (2999, "log2")
    frame.loc[0, "id"] = "ki67"
    with pytest.raises(SourceError, match=r"got values up to 37 of 'ki67' alone, the others up"):
        find_scale(read_facts(tmp_path / "a.csv", frame), None)


def test_read_source__facts_in_capitals_beside_known_genes_are_labels(tmp_path):
    frame = pd.DataFrame(LOG2.T, columns=SYMBOLS)
    frame.insert(0, "EGA_ID", range(70, 76))
    frame.insert(0, "sample", SAMPLES)
    frame["OS_MONTHS"] = 60.5
    source = read_facts(tmp_path / "a.csv", frame, samples_in="rows")
    assert (source.genes, set(source.labels)) == (SYMBOLS, {"EGA_ID", "OS_MONTHS"})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (RNG.normal(29, 4, (300, 6)).clip(15, 40), r"look like cycles \(Ct\) of qPCR"),
        (RNG.integers(0, 3, (300, 6)), r"whole numbers from 0 to 2, as calls of mutations"),
        (RNG.choice([0, 1, 2, 2, 2, 2, 8], (300, 6)), r"from 0 to 8, .* state unit = 'counts'"),
    ],
    ids=["cycles", "mutations", "copies"],
)
def test_find_scale__what_is_no_expression(tmp_path, values, message):
    frame = pd.DataFrame(values, index=[f"g{i}" for i in range(300)], columns=SAMPLES)
    frame.to_csv(tmp_path / "a.csv", index_label="id")
    with pytest.raises(SourceError, match=message):
        find_scale(read_source(tmp_path / "a.csv"), None)


def test_find_scale__log2_that_is_stated_as_tpm_is_told(tmp_path):
    frame = pd.DataFrame(LOG2, SYMBOLS, SAMPLES).rename_axis("id")
    frame.to_csv(tmp_path / "a.csv")
    (told,) = find_scale(read_source(tmp_path / "a.csv"), "tpm").notes
    assert told.endswith("as log2 does: stated as tpm, they are brought to log2(x + 1)")
    assert not find_scale(read_source(tmp_path / "a.csv"), "log2").notes


def test_read_source__rows_left_out_beneath_samples_are_told(tmp_path):
    frame = pd.DataFrame(LOG2.T, ["Mean", *SAMPLES[1:]], SYMBOLS).rename_axis("sample")
    frame.to_csv(tmp_path / "a.csv")
    source = read_source(tmp_path / "a.csv", reading=Reading(samples_in="rows"))
    assert source.samples == SAMPLES[1:]
    assert list(map(str, source.left_out)) == ["1 row left out: summaries of genes ('Mean')"]


def test_find_scale__rows_of_several_words_are_told(tmp_path):
    values = RNG.poisson(RNG.lognormal(4, 2, (300, 1)), (300, 6))
    names = [f"g{i}" for i in range(300)]
    names[:4] = ["sample code", "% mapped", "TRA2A /// TRA2B", "A; B"]
    frame = pd.DataFrame(values, names, SAMPLES).rename_axis("id")
    frame.to_csv(tmp_path / "a.csv")
    (told,) = find_scale(read_source(tmp_path / "a.csv"), None).notes
    assert told.startswith("2 of 300 rows may be no genes ('sample code', '% mapped')")
    frame.set_axis([f"gene {i}" for i in range(300)]).rename_axis("id").to_csv(tmp_path / "b.csv")
    assert not find_scale(read_source(tmp_path / "b.csv"), None).notes


def test_find_scale__values_without_a_scale(tmp_path):
    values = RNG.uniform(3, 13, (300, 1)) + RNG.normal(0, 0.3, (300, 6))
    frame = pd.DataFrame(values, [f"g{i}" for i in range(300)], SAMPLES).rank().rename_axis("id")
    frame.to_csv(tmp_path / "a.csv")
    with pytest.raises(
        SourceError, match=r"a\.csv: .*, got ranks or percentiles\. Use the .* unit"
    ):
        find_scale(read_source(tmp_path / "a.csv"), None)
    assert find_scale(read_source(tmp_path / "a.csv"), "intensity").scale == "raw"


def test_find_scale__samples_in_rows_under_names_of_genes_nobody_knows(tmp_path):
    values = RNG.uniform(3, 13, (300, 1)) + RNG.normal(0, 0.3, (300, 6))
    frame = pd.DataFrame(values, [f"si:ch{i}" for i in range(300)], SAMPLES).rename_axis("fish")
    frame.T.to_csv(tmp_path / "a.csv")
    (told,) = find_scale(read_source(tmp_path / "a.csv"), None).notes
    assert told.endswith("where samples are in rows, state samples_in = 'rows'")
    frame.to_csv(tmp_path / "b.csv")
    assert not find_scale(read_source(tmp_path / "b.csv"), None).notes


def test_find_scale__a_failed_sample_is_not_of_another_scale(tmp_path):
    values = RNG.lognormal(1, 1.6, (2000, 6)) * np.array([1, 1, 1, 1, 1, 0.01])
    frame = pd.DataFrame(values, index=[f"g{i}" for i in range(2000)], columns=SAMPLES)
    frame.to_csv(tmp_path / "a.csv", index_label="id")
    assert find_scale(read_source(tmp_path / "a.csv"), None).scale == "raw"


@pytest.mark.parametrize("separator", ["\t", ",", ";"])
def test_read_source__thousands_whatever_parts_the_cells(tmp_path, separator):
    rows = [("id", "S0", "S1"), ("g1", "1.206", "15"), ("g2", "640", "2.031"), ("g3", "12", "99")]
    path = tmp_path / "a.txt"
    path.write_text("".join(f"{separator.join(row)}\n" for row in rows))
    with pytest.raises(SourceError, match=r"points part thousands"):
        read_source(path)
    path.write_text(path.read_text().replace("1.206", "4.5").replace("2.031", "9.1"))
    assert read_source(path).samples == ["S0", "S1"]


@pytest.mark.parametrize("quote", ["", '"'])
def test_read_source__what_write_table_of_r_writes(tmp_path, quote):
    header = ",".join(f"{quote}{name}{quote}" for name in ("WT", "KO1", "KO2"))
    (tmp_path / "a.csv").write_text(
        f"{header}\n{quote}TP53{quote},1,2,3\n{quote}MYC{quote},4,5,6\n"
    )
    assert read_source(tmp_path / "a.csv").samples == ["WT", "KO1", "KO2"]
    sheet = tmp_path / "s.csv"
    sheet.write_text("tissue,age\nWT,skin,4\nKO1,lung,5\nKO2,skin,6\n")
    found = read_source(tmp_path / "a.csv", sample_sheet=sheet).labels
    assert found == {"tissue": ["skin", "lung", "skin"], "age": ["4", "5", "6"]}


def test_raw_labels__none_and_a_sign_are_values(tmp_path):
    (tmp_path / "a.csv").write_text("id,S0,S1,S2\ng1,1,2,3\n")
    (tmp_path / "s.csv").write_text("sample,treatment\nS0,none\nS1,-\nS2,Unknown\n")
    source = read_source(tmp_path / "a.csv", sample_sheet=tmp_path / "s.csv")
    assert raw_labels(source)["sample_label"][:, 0].tolist() == ["none", "-", "Unknown"]


def test_read_panel__numbers_of_lines_are_no_entrez_ids(tmp_path):
    genes = [str(i) for i in range(1, 41)]
    symbols = SYMBOLS[:40]
    (tmp_path / "list.csv").write_text(
        '"","x"\n' + "".join(f'"{i}","{SYMBOLS[20 + i]}"\n' for i in range(1, 6))
    )
    found = read_panel(tmp_path / "list.csv", genes=genes, symbols=symbols)
    assert found.genes == [str(i) for i in range(22, 27)]
    (tmp_path / "set.gmt").write_text("\t".join(["NAME", "url", *SYMBOLS[:20]]) + "\n")
    with pytest.raises(SourceError, match=r"one gene a line, got a line of 22 cells"):
        read_panel(tmp_path / "set.gmt", genes=genes, symbols=symbols)


def test_annotation__that_names_nothing_is_refused(tmp_path):
    (tmp_path / "a.gtf").write_text('chr1\tX\tgene\t1\t2\t.\t+\t.\tgene_id "E"\n')
    with pytest.raises(SourceError, match=r"a\.gtf: expected symbols or ids of genes, got none"):
        read_annotation_table(tmp_path / "a.gtf")
    (tmp_path / "b.csv").write_text("X,probe_id,symbol\n1,200_at,TP53\n")
    annotation = read_annotation_table(tmp_path / "b.csv")
    assert annotation.symbol_of("200_at") == "TP53"
    with pytest.raises(SourceError, match=r"annotation: expected names of .* '999_at', got"):
        name_genes(["999_at"], "probe", annotation, [])


def test_annotation__a_column_called_gene_of_ids_or_titles(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("probe,gene\n200_at,7157\n201_at,4609\n")
    found = read_annotation_table(path)
    assert (found.symbol, found.gene_id_of("200_at")) == ({}, "7157")
    path.write_text("probe,Gene Name,Entrez\n200_at,tumor protein p53,7157\n201_at,MYC gene,4609\n")
    found = read_annotation_table(path)
    assert (found.symbol, found.gene_id_of("201_at")) == ({}, "4609")


def test_annotation__entrez_ids_that_excel_cut_short_are_none(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("probe,Entrez\n1_at,1.00E+08\n2_at,1.00E+08\n3_at,7.157e+03\n4_at,1e+05\n")
    found = [read_annotation_table(path).gene_id_of(f"{i}_at") for i in range(1, 5)]
    assert found == ["", "", "7157", "100000"]
    path.write_text("1.00E+08\n7157\n")
    panel = read_panel(path, genes=["1_at", "3_at"], gene_ids=["1.00E+08", "7157"])
    assert (panel.genes, panel.missing) == (["3_at"], ["1.00E+08"])


def test_join__mouse_and_human_are_not_one_species(tmp_path):
    rows = [[s, s.capitalize()] for s in SYMBOLS]
    for place, name in enumerate(("human", "mouse")):
        frame = pd.DataFrame(LOG2, columns=[f"{name}{i}" for i in range(6)])
        frame.insert(0, "id", [row[place] for row in rows])
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
    files = [tmp_path / f"{name}.csv" for name in ("human", "mouse")]
    raws = [SourceFile(str(f), str(tmp_path / "raw" / f"{f.stem}.zarr")) for f in files]
    ingest_all(raws)
    with pytest.raises(SourceError, match=r"genes of one species, got .* mouse \(mouse\) and"):
        study_genes([source.raw for source in raws], (), GeneRule("gene", None, None, 0.5))


def test_cohort__of_samples_of_the_study_is_refused():
    found = [xr.Dataset({}, {"sample": [f"GSM{i}" for i in range(3)]}) for _ in range(2)]
    with pytest.raises(ConfigError, match=r"a cohort of other samples, got 3 .* such as 'GSM0'"):
        check_cohorts(found[:1], found[1:])
    check_cohorts(found[:1], [xr.Dataset({}, {"sample": ["S0"]})])
