"""MovieLens in GroupLens' own files: every line is a row or set apart with its reason, in all layouts."""

from __future__ import annotations

import csv
import datetime as dt
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kedro.io import DataCatalog, MemoryDataset
from kedro.runner import SequentialRunner
from places import MOVIELENS, PROJECT

from benchmarks.raw_files import Bad
from benchmarks.raw_files.grouplens import STARS, write
from multidomain import schema, sources
from multidomain.errors import DataError, SchemaError
from multidomain.io import ParquetTable, WorkingFolder
from multidomain.pipelines import ingest, validate
from multidomain.sources import fetch, files, grouplens
from multidomain.sources.text import parsing

LAYOUTS = ("1m", "20m", "25m", "32m")
Row = dict[str, Any]


def the_schema(layout: str) -> schema.Schema:
    return schema.parse(PROJECT / f"conf/base/datasets/movielens_{layout}.yml")


def read(raw: Path, layout: str, work: Path | None = None) -> dict[str, list[Row]]:
    """All tables of one layout below a raw folder."""
    described = the_schema(layout)
    found = sources.read(described, files.locate(described, raw), work or raw / "work")
    return {name: table.to_pyarrow().to_pylist() for name, table in found.items()}


# --- an independent reading, line by line ------------------------------------------------------------------------


def by_hand(folder: Path, layout: str) -> dict[str, list[Row]]:
    """The three tables of files without a bad line, as the vendor describes them."""
    if layout == "1m":
        cells = {name: [line.split("::") for line in lines(folder / f"{name}.dat", "latin-1")] for name in
                 ("ratings", "movies", "users")}  # fmt: skip
    else:
        cells = {name: list(csv.reader(lines(folder / f"{name}.csv", "utf-8")[1:])) for name in ("ratings", "movies")}
    first = 1 if layout == "1m" else 2
    impressions = [
        {
            "impression_id": number,
            "user_id": user,
            "item_id": movie,
            "timestamp": dt.datetime(1970, 1, 1) + dt.timedelta(seconds=int(seconds)),
            "label": int(float(stars) >= 4),
        }
        for number, (user, movie, stars, seconds) in enumerate(cells["ratings"], start=first)
    ]
    if layout == "1m":
        users = [
            {"user_id": user, "gender": gender, "age": int(age), "occupation": int(job), "zip_code": code}
            for user, gender, age, job, code in cells["users"]
        ]
    else:
        users = [{"user_id": user} for user in sorted({row["user_id"] for row in impressions}, key=int)]
    return {"impressions": impressions, "users": users, "items": [a_movie(*line) for line in cells["movies"]]}


def lines(path: Path, encoding: str) -> list[str]:
    return path.read_bytes().decode(encoding).removesuffix("\n").split("\n")


def a_movie(number: str, title: str, genres: str) -> Row:
    year = re.search(r"\((\d{4})\)$", title)
    named = None if genres == "(no genres listed)" else genres.split("|")
    return {
        "item_id": number,
        "genre": named and named[0],
        "genres": named,
        "release_year": int(year[1]) if year else None,
    }


@pytest.mark.parametrize("layout", LAYOUTS)
def test_values_equal_a_reading_line_by_line(tmp_path: Path, layout: str) -> None:
    folder = tmp_path / f"movielens_{layout}"
    write(folder, rows=2000, layout=layout)
    expected, found = by_hand(folder, layout), read(tmp_path, layout)
    for name in ("impressions", "users", "items"):
        key = {"impressions": "impression_id", "users": "user_id", "items": "item_id"}[name]
        found[name].sort(key=lambda row: int(row[key]))
        assert found[name] == expected[name], name
    assert found["rejected"] == []
    assert len({row["label"] for row in found["impressions"]}) == 2
    assert any(row["genres"] and len(row["genres"]) > 1 for row in found["items"])
    if layout != "1m":
        assert any(row["genre"] is None for row in found["items"])
        assert any(row["release_year"] is None for row in found["items"])


def test_titles_arrive_with_their_commas_quotes_and_accents(tmp_path: Path) -> None:
    for layout, ending in (("1m", "dat"), ("20m", "csv")):
        folder = tmp_path / f"movielens_{layout}"
        write(folder, rows=100, layout=layout)
        found = {
            name: folder / f"{name}.{ending}" for name in ("ratings", "movies", "users")[: 3 if layout == "1m" else 2]
        }
        tables = grouplens.read(the_schema(layout), found, tmp_path / "work")
        titles = tables["items"].order_by("item_id").title.to_pyarrow().to_pylist()
        assert [re.sub(r" \d+ \(\d+\)$", "", title) for title in titles[:4]] == [
            "Misérables, Les", "Night Train", '"Quoted" One, The', "Été",
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("title", "year"),
    [
        ("Toy Story (1995)", 1995),
        ("Toy Story (1995) ", 1995),
        ("City of Lost Children, The (Cité des enfants perdus, La) (1995)", 1995),
        ("2001: A Space Odyssey (1968)", 1968),
        ("Fireplace, The (2006–2007)", 2006),
        ("Diplomatic Immunity (2009– )", 2009),
        ("Babylon 5", None),
        ("(2012) The End", None),
        ("Agent 47 (0047)", None),
    ],
)
def test_the_year_of_a_title_is_the_year_of_release(tmp_path: Path, title: str, year: int | None) -> None:
    folder = tmp_path / "movielens_20m"
    write(folder, rows=50, layout="20m")
    with (folder / "movies.csv").open("a") as file:
        csv.writer(file, lineterminator="\n").writerow(["999", title, "Drama"])
    (found,) = [row for row in read(tmp_path, "20m")["items"] if row["item_id"] == "999"]
    assert found["release_year"] == year


@pytest.mark.parametrize("layout", ["1m", "20m"])
def test_the_zip_as_it_comes_and_its_files_unpacked_and_crlf_give_the_same(tmp_path: Path, layout: str) -> None:
    made = write(tmp_path / "plain" / f"movielens_{layout}/ml-{layout}", rows=500, layout=layout)
    expected = read(tmp_path / "plain", layout)
    (tmp_path / "zip" / f"movielens_{layout}").mkdir(parents=True)
    with zipfile.ZipFile(tmp_path / "zip" / f"movielens_{layout}" / f"ml-{layout}.zip", "w") as archive:
        archive.writestr(f"ml-{layout}/README", "hello")
        archive.writestr(f"ml-{layout}/tags.csv", "left unread")
        for name, file in made.items():
            archive.write(file.path, f"ml-{layout}/{name}")
    assert read(tmp_path / "zip", layout) == expected
    for name, file in made.items():
        windows = tmp_path / "crlf" / f"movielens_{layout}" / name
        windows.parent.mkdir(parents=True, exist_ok=True)
        windows.write_bytes(file.path.read_bytes().replace(b"\n", b"\r\n"))
    assert read(tmp_path / "crlf", layout) == expected


# --- bad lines ---------------------------------------------------------------------------------------------------

DAT: dict[str, list[Bad]] = {
    "ratings.dat": [
        Bad(line=b"UserID::MovieID::Rating::Timestamp", reason="user_id 'UserID' is not a whole number"),
        Bad(line=b"1,1193,5,978300760", reason="has 1 columns, not 4, divided by '::'"),
        Bad(line=b"1:1193:5:978300760", reason="has 1 columns, not 4, divided by '::'"),
        Bad(line=b"1::1193::5", reason="has 3 columns, not 4, divided by '::'"),
        Bad(line=b"1::1193::5::978300760::", reason="has 5 columns, not 4, divided by '::'"),
        Bad(line=b"::1193::5::978300760", reason="user_id is missing"),
        Bad(line=b"1::::5::978300760", reason="item_id is missing"),
        Bad(line=b"1::1193::6::978300760", reason="rating '6' is not one of 1, 2, 3, 4, 5"),
        Bad(line=b"1::1193::4.5::978300760", reason="rating '4.5' is not a whole number"),
        Bad(line=b"1::1193::::978300760", reason="rating is missing"),
        Bad(line=b"1::1193::5::2000-12-31", reason="timestamp '2000-12-31' is not a whole number"),
        Bad(line=b"1::1193::5::978300760000", reason="timestamp '978300760000' is not in seconds since 1970"),
        Bad(line=b"1::1193::5::-1", reason="timestamp '-1' is not in seconds since 1970"),
        Bad(line=b"", reason="is empty"),
        Bad(line=b"\xe9\x00::1::5::978300760", reason="user_id 'é\x00' is not a whole number"),
    ],
    "movies.dat": [
        Bad(line=b"MovieID::Title::Genres", reason="item_id 'MovieID' is not a whole number"),
        Bad(line=b"900::Night Train", reason="has 2 columns, not 3, divided by '::'"),
        Bad(line=b"901::Alien:: Aliens (1979)::Horror", reason="has 4 columns, not 3, divided by '::'"),
        Bad(line=b"902::::Horror", reason="title is missing"),
        Bad(line=b"903::Night Train (1990)::", reason="genres is missing"),
        Bad(line=b"2::Another Night Train (1990)::Drama", reason="item_id '2' is on line 2 already"),
    ],
    "users.dat": [
        Bad(line=b"900::X::25::10::48067", reason="gender 'X' is not one of F, M"),
        Bad(line=b"901::F::young::10::48067", reason="age 'young' is not a whole number"),
        Bad(line=b"902::F::25::48067", reason="has 4 columns, not 5, divided by '::'"),
        Bad(line=b"2::F::25::10::48067", reason="user_id '2' is on line 2 already"),
    ],
}  # fmt: skip
CSV: dict[str, list[Bad]] = {
    "ratings.csv": [
        Bad(line=b"userId,movieId,rating,timestamp", reason="userId 'userId' is not a whole number"),
        Bad(line=b"1;296;5.0;1147880044", reason="has 1 columns, not 4, divided by ','"),
        Bad(line=b"1::296::5.0::1147880044", reason="has 1 columns, not 4, divided by ','"),
        Bad(line=b"1,296,5.0", reason="has 3 columns, not 4, divided by ','"),
        Bad(line=b"1,296,4,0,1147880044", reason="has 5 columns, not 4, divided by ','"),
        Bad(line=b"1,,5.0,1147880044", reason="movieId is missing"),
        Bad(line=b"1,296,4.25,1147880044", reason=f"rating '4.25' is not one of {', '.join(STARS)}"),
        Bad(line=b"1,296,0.0,1147880044", reason=f"rating '0.0' is not one of {', '.join(STARS)}"),
        Bad(line=b"1,296,good,1147880044", reason="rating 'good' is not a number"),
        Bad(line=b"1,296,5.0,1147880044000", reason="timestamp '1147880044000' is not in seconds since 1970"),
        Bad(line=b"\xff,296,5.0,1147880044", reason="is not UTF-8"),
    ],
    "movies.csv": [
        Bad(line=b"9001,Mis\xe9rables (1995),Drama", reason="is not UTF-8"),
        Bad(line=b'9002,"American President, The (1995),Drama', reason="has a quote that is not closed"),
        Bad(line=b"9003,American President, The (1995),Drama", reason="has 4 columns, not 3, divided by ','"),
        Bad(line=b"9004,Night Train (1990)", reason="has 2 columns, not 3, divided by ','"),
        Bad(line=b"9005,,Drama", reason="title is missing"),
        Bad(line=b'4,"Night Train, Another (1990)",Drama', reason="movieId '4' is on line 3 already"),
    ],
}


@pytest.mark.parametrize(("layout", "bad"), [("1m", DAT), ("20m", CSV)])
@pytest.mark.parametrize("size", [parsing.SLICE, 700])
def test_each_bad_line_is_set_apart_with_its_reason_and_all_others_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str, bad: dict[str, list[Bad]], size: int
) -> None:
    monkeypatch.setattr(parsing, "SLICE", size)
    made = write(tmp_path / f"movielens_{layout}", rows=200, layout=layout, bad=bad)
    write(tmp_path / "clean" / f"movielens_{layout}", rows=200, layout=layout)
    found, clean = read(tmp_path, layout, tmp_path / "work"), read(tmp_path / "clean", layout)
    apart = sorted((row["file"], row["line"], row["reason"], row["text"]) for row in found["rejected"])
    encoding, escape = ("latin-1", "strict") if layout == "1m" else ("utf-8", "backslashreplace")
    assert apart == sorted(
        (name, number, line.reason, line.line.decode(encoding, escape))
        for name, file in made.items()
        for number, line in file.placed
    )
    for row in found["files"]:
        assert row["lines"] == made[row["file"]].lines == row["rows"] + row["rejected"]
        assert row["rejected"] == len(bad[row["file"]])
    assert {row["file"] for row in found["files"]} == set(made)
    for name in ("users", "items"):
        assert found[name] == clean[name]
    without = [{**row, "impression_id": None} for row in found["impressions"]]
    assert without == [{**row, "impression_id": None} for row in clean["impressions"]]


def changed(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


STOPS_CSV: dict[str, tuple[str, Callable[[bytes], bytes], list[str]]] = {
    "no header": (
        "ratings.csv",
        lambda data: data.split(b"\n", 1)[1],
        ["ratings.csv: line 1 names", "userId, movieId"],
    ),
    "films without a header": (
        "movies.csv",
        lambda data: data.split(b"\n", 1)[1],
        ["movies.csv: line 1 names", "movieId, title"],
    ),
    "another header": (
        "ratings.csv",
        lambda data: data.replace(b"movieId", b"itemId"),
        ["line 1", "'movieId' is not known"],
    ),
    "tabs": ("ratings.csv", lambda data: data.replace(b",", b"\t"), ["line 1", "divided by ','"]),
    "the separators of 1M": ("ratings.csv", lambda data: data.replace(b",", b"::"), ["line 1", "divided by ','"]),
    "a header and no rows": (
        "movies.csv",
        lambda _: b"movieId,title,genres\n",
        ["movies.csv has no rows", "it is empty"],
    ),
    "an empty file": ("movies.csv", lambda _: b"", ["movies.csv", "empty"]),
    "utf-16": ("movies.csv", lambda data: data.decode().encode("utf-16"), ["line 1 names the columns"]),
}


@pytest.mark.parametrize(("name", "change", "words"), STOPS_CSV.values(), ids=STOPS_CSV)
def test_a_csv_file_of_another_form_stops_the_run_with_file_line_and_what_was_expected(
    tmp_path: Path, name: str, change: Callable[[bytes], bytes], words: list[str]
) -> None:
    write(tmp_path / "movielens_20m", rows=50, layout="20m")
    changed(tmp_path / "movielens_20m" / name, change)
    with pytest.raises(DataError) as error:
        read(tmp_path, "20m")
    for word in words:
        assert word in error.value.message


STOPS_DAT: dict[str, tuple[str, Callable[[bytes], bytes], list[str]]] = {
    "commas": (
        "ratings.dat",
        lambda data: data.replace(b"::", b","),
        ["ratings.dat has no rows", "line 1 has 1 columns"],
    ),
    "tabs": ("users.dat", lambda data: data.replace(b"::", b"\t"), ["users.dat has no rows", "line 1 has 1 columns"]),
    "an empty file": ("movies.dat", lambda _: b"", ["movies.dat", "empty"]),
}


@pytest.mark.parametrize(("name", "change", "words"), STOPS_DAT.values(), ids=STOPS_DAT)
def test_a_dat_file_of_another_form_stops_the_run_with_file_line_and_what_was_expected(
    tmp_path: Path, name: str, change: Callable[[bytes], bytes], words: list[str]
) -> None:
    write(tmp_path / "movielens_1m", rows=50)
    changed(tmp_path / "movielens_1m" / name, change)
    with pytest.raises(DataError) as error:
        read(tmp_path, "1m")
    for word in words:
        assert word in error.value.message


def test_files_of_two_layouts_together_are_refused(tmp_path: Path) -> None:
    made = write(tmp_path / "1m", rows=50) | write(tmp_path / "20m", rows=50, layout="20m")
    with pytest.raises(SchemaError, match=r"reads ratings, movies and users of MovieLens-1M.*Found: movies, ratings\."):
        sources.read(
            the_schema("1m"), {"ratings": made["ratings.dat"].path, "movies": made["movies.csv"].path}, tmp_path
        )


def test_how_the_files_are_read_is_known_by_the_same_words_in_every_run() -> None:
    """Else a run that was stopped would start again."""
    for form in (*grouplens.DAT.values(), *grouplens.CSV.values()):
        assert " at 0x" not in repr(form)


# --- the stages --------------------------------------------------------------------------------------------------


def stages(raw: Path, folder: Path, described: schema.Schema) -> tuple[DataCatalog, dict[str, Any]]:
    """Ingest and validate; the catalog and the report."""
    tables = [f"{stage}_{name}" for stage in ("ingested", "valid") for name in ("impressions", "users", "items")]
    tables += ["quarantine", "rejected_lines"]
    data = DataCatalog(
        {
            "schema": MemoryDataset(described, copy_mode="assign"),
            "params:raw_folder": MemoryDataset(str(raw)),
            "params:sample_share": MemoryDataset(None),
            "params:window": MemoryDataset({}),
            "parsed_files": WorkingFolder(filepath=str(folder / "parsed")),
            **{name: ParquetTable(filepath=str(folder / f"{name}.parquet")) for name in tables},
        }
    )
    left: dict[str, Any] = SequentialRunner().run(ingest.create_pipeline() + validate.create_pipeline(), data)
    return data, left["validation_report"].load()


@pytest.mark.parametrize(("layout", "bad"), [("1m", DAT), ("20m", CSV)])
def test_what_is_kept_and_what_is_set_apart_are_all_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str, bad: dict[str, list[Bad]]
) -> None:
    name = f"movielens_{layout}"
    reasons = ["item_id is not among the valid items", "user_id is not among the valid users"]
    unknown = [Bad(line=b"1::7777::5::978300760", reason=reasons[0]), Bad(line=b"7777::1::5::1", reason=reasons[1])]
    if layout == "20m":
        unknown = [Bad(line=b"1,7777,5.0,1147880044", reason=reasons[0])]  # any number is a user's
    ratings = next(iter(bad))
    made = write(tmp_path / name, rows=300, layout=layout, bad={**bad, ratings: [*unknown, *bad[ratings]]})
    relaxed = (PROJECT / f"conf/base/datasets/{name}.yml").read_text() + "validation: {max_quarantined: 0.3}\n"
    (tmp_path / f"{name}.yml").write_text(relaxed)
    data, report = stages(tmp_path, tmp_path / "out", schema.parse(tmp_path / f"{name}.yml"))
    apart = data.load("quarantine").to_pyarrow().to_pylist()
    of_rows = [row for row in apart if row["table"] == "impressions"]
    placed = made[ratings].placed[: len(unknown)]
    assert [(row["row_key"], row["reason"]) for row in of_rows] == [(str(line), one.reason) for line, one in placed]
    kept = data.load("valid_impressions").count().execute()
    assert kept + len(unknown) + len(bad[ratings]) == made[ratings].lines
    for file, content in bad.items():
        assert report["files"][file]["quarantined"] == len(content)
        assert len([row for row in apart if row["table"] == file]) == len(content)
    assert report["tables"]["items"]["kept"] == made[list(made)[1]].lines - len(bad[list(made)[1]])


def test_too_many_bad_lines_stop_the_run_with_file_line_and_reason(tmp_path: Path) -> None:
    write(tmp_path / "movielens_1m", rows=300, bad=DAT)
    with pytest.raises(DataError) as error:
        stages(tmp_path, tmp_path / "out", the_schema("1m"))
    for word in ("ratings.dat: 15 of 315 rows", "line 3 user_id 'UserID' is not a whole number", "movies.dat: 6 of"):
        assert word in error.value.message


# --- the schemas -------------------------------------------------------------------------------------------------


def test_1m_has_the_choices_of_the_copy_in_the_wheel() -> None:
    ours, theirs = the_schema("1m"), schema.parse(PROJECT / "conf/base/datasets/movielens.yml")
    for section in ("domains", "splits", "features", "histories", "counts", "windows", "request", "roles", "labels"):
        assert getattr(ours, section) == getattr(theirs, section), section
    assert ours.feature_sets[:3] == theirs.feature_sets


def test_scenario_wise_recs_protocol_is_a_variant_of_1m() -> None:
    chosen = the_schema("1m").variant(domain="age", split="random", features="scenario_wise_rec")
    inputs = {feature.name for feature in chosen.features}
    assert inputs == {"user_id", "item_id", "gender", "occupation", "zip_code", "genre"}
    assert (chosen.domain.bins, chosen.split.kind, chosen.carries_labels) == ((25.0, 35.0), "random", ())


def test_the_larger_ones_differ_in_their_files_alone() -> None:
    first, *others = (the_schema(layout) for layout in LAYOUTS[1:])
    for other in others:
        for section in (
            "source",
            "domains",
            "splits",
            "histories",
            "counts",
            "windows",
            "request",
            "roles",
            "labels",
            "feature_sets",
        ):
            assert getattr(other, section) == getattr(first, section), section
        assert [f.name for f in other.features] == [f.name for f in first.features]
        assert not {f.path for f in other.files.values()} & {f.path for f in first.files.values()}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_all_files_of_a_layout_come_from_one_archive_of_its_name(layout: str) -> None:
    (one,) = fetch.downloads(the_schema(layout), "/raw")
    assert one.address == f"https://files.grouplens.org/datasets/movielens/ml-{layout}.zip"
    assert one.place == Path(f"/raw/movielens_{layout}/ml-{layout}.zip")
    assert one.checksum


# --- the real log ------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not MOVIELENS.is_file(), reason="data/01_raw/movielens holds no archive; `make run` fetches it")
def test_the_real_log_written_as_dat_files_and_read_back_is_the_same(tmp_path: Path) -> None:
    described = schema.parse(PROJECT / "conf/base/datasets/movielens.yml")
    tables = sources.read(described, {"archive": MOVIELENS})
    real = {name: tables[name].to_pandas() for name in ("impressions", "users", "items")}
    numbers = {title: number for number, title in enumerate(real["items"].item_id, start=1)}
    folder = tmp_path / "movielens_1m"
    folder.mkdir()
    rows, people = real["impressions"], real["users"]
    rows["user"], rows["film"] = rows.user_id.str.removeprefix("1m_"), rows.item_id.map(numbers)
    rows["seconds"] = rows.timestamp.astype("datetime64[s]").astype("int64")
    with (folder / "ratings.dat").open("w") as file:
        for user, film, label, seconds in zip(rows.user, rows.film, rows.label, rows.seconds, strict=True):
            file.write(f"{user}::{film}::{4 if label else 3}::{seconds}\n")
    with (folder / "movies.dat").open("w", encoding="latin-1", errors="replace") as file:
        for film in real["items"].itertuples():
            genres = "|".join(film.genres) if film.genres is not None else "Drama"
            file.write(f"{numbers[film.item_id]}::{film.item_id}::{genres}\n")
    with (folder / "users.dat").open("w") as file:
        for user in people.itertuples():
            number = user.user_id.removeprefix("1m_")
            file.write(f"{number}::{user.gender}::{user.age}::{user.occupation}::{user.zip_code}\n")
    ours = the_schema("1m")
    found = sources.read(ours, files.locate(ours, tmp_path), tmp_path / "work")
    back = found["impressions"].order_by("impression_id").to_pandas()
    assert len(back) == len(rows) == 1_000_209
    assert (back.user_id == rows.user).all()
    assert (back.item_id == rows.film.astype(str)).all()
    assert (back.timestamp == rows.timestamp).all()
    assert (back.label == rows.label).all()
    them = people.assign(user_id=people.user_id.str.removeprefix("1m_")).sort_values("user_id", ignore_index=True)
    us = found["users"].to_pandas().sort_values("user_id", ignore_index=True)
    assert us[them.columns.tolist()].equals(them)
    years = found["items"].to_pandas().set_index("item_id").release_year
    theirs = (
        real["items"].assign(number=real["items"].item_id.map(numbers).astype(str)).set_index("number").release_year
    )
    assert (years == theirs.reindex(years.index)).all()
    assert found["rejected"].count().execute() == 0
