"""Reading ratings: what is kept, what is put aside and why."""

import bz2
import csv
import datetime as dt
import gzip
import io
import json
import lzma
import random
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recsys_assets.domain.ratings import fields, reading, streams
from recsys_assets.domain.ratings.fields import Portion, read_portions
from recsys_assets.domain.ratings.formats import Layout
from recsys_assets.domain.ratings.reading import (
    RatingsError,
    ReadReport,
    TableColumns,
    read_file,
    read_ratings,
)
from recsys_assets_tests.domain.ratings.rating_files import (
    AMAZON_HEADER,
    amazon,
    amazon_line,
    cut_gzip,
    read,
    read_bytes,
)

GOOD = amazon_line(b"1", b"B1", b"4")
A_DAY = dt.datetime(2015, 8, 31)


def test_an_amazon_review_becomes_a_rating(tmp_path: Path) -> None:
    outcome = read_bytes(tmp_path, "reviews.tsv", amazon(GOOD))
    assert outcome.ratings == [
        {
            "customer_id": "1",
            "video_id": "B1",
            "title": "A Title",
            "rating": 4.0,
            "reviewed_at": A_DAY,
            "review_id": "R1",
            "file": "reviews.tsv",
            "line": 2,
        }
    ]
    assert outcome.report.format == "amazon"
    assert outcome.report.scale == (1, 5)
    assert outcome.report.files == ("reviews.tsv",)


def test_columns_have_the_types_of_the_contract(tmp_path: Path) -> None:
    (tmp_path / "reviews.tsv").write_bytes(amazon(GOOD))
    read_ratings(tmp_path / "reviews.tsv", tmp_path)
    text = pa.string()
    assert {f.name: f.type for f in pq.read_schema(tmp_path / "ratings.parquet")} == {
        "customer_id": text,
        "video_id": text,
        "title": text,
        "rating": pa.float32(),
        "reviewed_at": pa.timestamp("ms"),
        "review_id": text,
        "file": text,
        "line": pa.int64(),
    }
    assert {f.name: f.type for f in pq.read_schema(tmp_path / "rejects.parquet")} == {
        "file": text,
        "line": pa.int64(),
        "column": text,
        "reason": text,
        "raw": text,
    }


MALFORMED = {
    "too few fields": (b"US\t1\tR1", None, "too few fields"),
    "too many fields": (GOOD + b"\tmore", None, "too many fields"),
    "empty rating": (amazon_line(stars=b""), "star_rating", "empty rating"),
    "blank rating": (amazon_line(stars=b" "), "star_rating", "empty rating"),
    "word": (amazon_line(stars=b"five"), "star_rating", "rating is not a number"),
    "nan": (amazon_line(stars=b"nan"), "star_rating", "rating is not a number"),
    "inf": (amazon_line(stars=b"-inf"), "star_rating", "rating is not a number"),
    "underscore": (amazon_line(stars=b"0_5"), "star_rating", "rating is not a number"),
    "other digits": (amazon_line(stars="٤".encode()), "star_rating", "rating is not a number"),
    "NUL in rating": (amazon_line(stars=b"4\0"), "star_rating", "rating is not a number"),
    "above scale": (amazon_line(stars=b"5.1"), "star_rating", "rating out of range"),
    "below scale": (amazon_line(stars=b"0"), "star_rating", "rating out of range"),
    "negative": (amazon_line(stars=b"-4"), "star_rating", "rating out of range"),
    "huge": (amazon_line(stars=b"9" * 300), "star_rating", "rating out of range"),
    "no customer": (amazon_line(b""), "customer_id", "missing id"),
    "blank customer": (amazon_line(b" \xc2\xa0"), "customer_id", "missing id"),
    "no video": (amazon_line(video=b""), "product_id", "missing id"),
    "broken customer": (amazon_line(b"1\xff"), "customer_id", "broken UTF-8"),
    "broken video": (amazon_line(video=b"\xe2\x82"), "product_id", "broken UTF-8"),
    "broken rating": (amazon_line(stars=b"5\xff"), "star_rating", "broken UTF-8"),
    "NUL in id": (amazon_line(b"1\x002"), "customer_id", "NUL byte in an id"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_line_is_put_aside_and_its_neighbours_are_kept(
    tmp_path: Path, case: str
) -> None:
    line, column, reason = MALFORMED[case]
    outcome = read_bytes(tmp_path, "reviews.tsv", amazon(GOOD, line, GOOD))
    assert outcome.rejects == [
        {
            "file": "reviews.tsv",
            "line": 3,
            "column": column,
            "reason": reason,
            "raw": line.decode(errors="replace")[:500],
        }
    ]
    assert outcome.column("line") == [2, 4]


def test_reasons_are_counted_most_frequent_first(tmp_path: Path) -> None:
    nan, short = amazon_line(stars=b"nan"), b"US\t1"
    report = read_bytes(tmp_path, "reviews.tsv", amazon(short, GOOD, nan, nan)).report
    assert list(report.rejects_by_reason.items()) == [
        ("rating is not a number", 2),
        ("too few fields", 1),
    ]
    assert (report.rows_read, report.rows_kept, report.rows_rejected) == (4, 1, 3)


def test_the_raw_line_is_cut_at_500_characters_and_its_broken_bytes_replaced(
    tmp_path: Path,
) -> None:
    outcome = read_bytes(tmp_path, "reviews.tsv", amazon(GOOD, b"\xff" + "é".encode() * 600))
    assert outcome.rejects[0]["raw"] == "\ufffd" + "é" * 499


def test_broken_utf8_beside_the_needed_columns_is_replaced(tmp_path: Path) -> None:
    line = amazon_line(title=b"Caf\xe9", body=b"\xff\xff", review=b"R\0")
    outcome = read_bytes(tmp_path, "reviews.tsv", amazon(line, GOOD))
    assert outcome.column("title") == ["Caf\ufffd", "A Title"]
    assert outcome.column("review_id") == ["R\ufffd", "R1"]


def test_a_quote_in_a_body_swallows_nothing(tmp_path: Path) -> None:
    lines = [amazon_line(body=b'"not closed'), amazon_line(body=b'5" wide'), GOOD]
    assert read_bytes(tmp_path, "reviews.tsv", amazon(*lines)).column("line") == [2, 3, 4]


def test_a_bare_carriage_return_ends_no_line(tmp_path: Path) -> None:
    outcome = read_bytes(tmp_path, "reviews.tsv", amazon(amazon_line(body=b"a\rb\r"), GOOD))
    assert outcome.column("line") == [2, 3]


def test_windows_line_ends_bom_blank_lines_and_a_missing_last_line_end_change_nothing(
    tmp_path: Path,
) -> None:
    plain = read_bytes(tmp_path, "plain.tsv", amazon(GOOD, amazon_line(date=b"2014-01-02")))
    data = amazon(b"", GOOD, b"  ", amazon_line(date=b"2014-01-02"), end=b"\r\n")
    other = read_bytes(tmp_path, "other.tsv", b"\xef\xbb\xbf\r\n" + data.removesuffix(b"\r\n"))
    assert other.column("line") == [4, 6]
    assert (
        other.column("reviewed_at")
        == plain.column("reviewed_at")
        == [
            A_DAY,
            dt.datetime(2014, 1, 2),
        ]
    )
    assert not other.rejects


def test_a_windows_line_end_is_no_part_of_the_last_column(tmp_path: Path) -> None:
    data = b"star_rating\tproduct_id\tcustomer_id\r\n3\tB1\t11\r\n4\tB1\t12\r"
    assert read_bytes(tmp_path, "reviews.tsv", data).column("customer_id") == ["11", "12"]


def test_a_rating_needs_no_title_date_or_review_id(tmp_path: Path) -> None:
    header = b"star_rating\tcustomer_id\tproduct_id\n"
    outcome = read_bytes(tmp_path, "reviews.tsv", header + b"3\t1\tB1\n")
    [row] = outcome.ratings
    assert (row["title"], row["reviewed_at"], row["review_id"]) == (None, None, None)
    assert outcome.report.dates_missing == 1


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        (b"2015-08-31", A_DAY),
        (b"2015-08-31T01:02:03.9", dt.datetime(2015, 8, 31, 1, 2, 3)),
        (b"2015-08-31 02:00:00+02:00", A_DAY),
        (b"1440979200", A_DAY),
        (b"1440979200.0", A_DAY),
        (b"", None),
        (b"yesterday", None),
        (b"2015-02-30", None),
        (b"-5", None),
        (b"1e99", None),
        (b"2015\xff", None),
    ],
)
def test_a_date_is_read_or_null_and_never_costs_the_rating(
    tmp_path: Path, text: bytes, moment: dt.datetime | None
) -> None:
    outcome = read_bytes(tmp_path, "reviews.tsv", amazon(amazon_line(date=text)))
    assert outcome.column("reviewed_at") == [moment]
    assert outcome.report.dates_missing == (moment is None)


def test_gzip_is_known_by_content_and_may_have_several_members(tmp_path: Path) -> None:
    parts = [amazon(GOOD), GOOD + b"\n" + GOOD[:20], GOOD[20:] + b"\n"]
    data = b"".join(gzip.compress(part) for part in parts) + bytes(64)
    assert read_bytes(tmp_path, "no-suffix", data).column("line") == [2, 3, 4]


def some_reviews(count: int) -> list[bytes]:
    generator = random.Random(1)
    lines = [
        amazon_line(b"%d" % generator.randrange(10**9), body=generator.randbytes(40).hex().encode())
        for _ in range(count)
    ]
    return [AMAZON_HEADER + b"\n", *(line + b"\n" for line in lines)]


@pytest.mark.parametrize(
    ("name", "compress"),
    [("no-suffix", pa.Codec("zstd").compress), ("misnamed.gz", bz2.compress)],
)
def test_zstandard_and_bzip2_are_known_by_content(
    tmp_path: Path, name: str, compress: Callable[[bytes], bytes]
) -> None:
    data = bytes(compress(amazon(GOOD, GOOD)))
    assert read_bytes(tmp_path, name, data).column("line") == [2, 3]


@pytest.mark.parametrize("keep", [0.3, 0.9, 0.999])
def test_a_truncated_gzip_keeps_the_rows_before_the_cut(tmp_path: Path, keep: float) -> None:
    lines = some_reviews(3000)
    data = cut_gzip(lines, keep)
    survives = zlib.decompressobj(31).decompress(data)[:-1]  # ISA-L may keep the last byte back
    whole_lines = survives.count(b"\n") - 1
    assert 0 < whole_lines < 3000

    outcome = read_bytes(tmp_path, "reviews.tsv.gz", data)
    assert outcome.column("line") == list(range(2, 2 + whole_lines))
    assert outcome.reasons == [(whole_lines + 2, None, "truncated gzip")]
    assert outcome.rejects[0]["raw"].startswith(survives.split(b"\n")[-1].decode())


def test_a_complete_line_without_its_end_is_no_rating_at_the_cut_of_a_gzip(tmp_path: Path) -> None:
    compressor = zlib.compressobj(wbits=31)
    data = compressor.compress(amazon(GOOD) + GOOD) + compressor.flush(zlib.Z_SYNC_FLUSH)
    outcome = read_bytes(tmp_path, "reviews.tsv.gz", data)
    assert outcome.column("line") == [2]
    assert outcome.reasons == [(3, None, "truncated gzip")]
    assert outcome.rejects[0]["raw"] == GOOD.decode()


def test_a_gzip_cut_at_a_line_end_still_says_that_it_is_cut(tmp_path: Path) -> None:
    compressor = zlib.compressobj(wbits=31)
    data = compressor.compress(amazon(GOOD)) + compressor.flush(zlib.Z_SYNC_FLUSH)
    outcome = read_bytes(tmp_path, "reviews.tsv.gz", data)
    assert outcome.column("line") == [2]
    assert outcome.rejects[0] | {"file": ""} == {
        "file": "",
        "line": 3,
        "column": None,
        "reason": "truncated gzip",
        "raw": "",
    }


def test_a_corrupt_gzip_keeps_the_rows_before_the_damage(tmp_path: Path) -> None:
    lines = some_reviews(3000)
    first, second = (gzip.compress(b"".join(part)) for part in (lines[:2001], lines[2001:]))
    data = second[:12] + b"\xff" * 200 + second[212:]
    outcome = read_bytes(tmp_path, "reviews.tsv.gz", first + data)
    assert outcome.column("line")[:2000] == list(range(2, 2002))
    assert "corrupt gzip" in outcome.report.rejects_by_reason
    assert outcome.report.rows_kept < 2100


def test_a_wrong_gzip_checksum_is_reported(tmp_path: Path) -> None:
    data = bytearray(gzip.compress(amazon(GOOD)))
    data[-6] ^= 1
    outcome = read_bytes(tmp_path, "reviews.tsv.gz", bytes(data))
    assert outcome.column("line") == [2]
    assert outcome.reasons == [(3, None, "corrupt gzip")]


def test_a_line_longer_than_a_block_is_read(tmp_path: Path) -> None:
    long = amazon_line(body=b"x" * (streams.BLOCK_BYTES + 5))
    assert read_bytes(tmp_path, "reviews.tsv", amazon(GOOD, long, GOOD)).column("line") == [2, 3, 4]


def test_a_line_without_end_is_one_reject_and_not_held_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "_CHUNK_BYTES", 1000)
    monkeypatch.setattr(streams, "LONGEST_LINE", 3000)
    outcome = read_bytes(tmp_path, "reviews.tsv", amazon(GOOD, b"x" * 50_000, GOOD, b"y" * 9000))
    assert outcome.column("line") == [2, 4]
    assert outcome.reasons == [(3, None, "line too long"), (5, None, "line too long")]


@pytest.mark.parametrize("block", [700, 701, 1024, 5000])
def test_where_blocks_end_makes_no_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    lines = [AMAZON_HEADER + b"\r\n"]
    lines += [line + b"\r\n" for line in [GOOD, b"short", b"", *[GOOD] * 40]]
    expected = read_bytes(tmp_path, "reviews.tsv", b"".join(lines))
    monkeypatch.setattr(streams, "BLOCK_BYTES", block)
    monkeypatch.setattr(streams, "_CHUNK_BYTES", 300)
    monkeypatch.setattr(streams, "_READ_BYTES", 100)
    for data in (b"".join(lines), gzip.compress(b"".join(lines))):
        outcome = read_bytes(tmp_path, "reviews.tsv", data)
        assert outcome.ratings == expected.ratings
        assert outcome.rejects == expected.rejects
    assert len(expected.ratings) == 41


def test_movielens_csv_takes_its_titles_from_beside_it(tmp_path: Path) -> None:
    (tmp_path / "movies.csv").write_text(
        'movieId,title,genres\n10,"Movie, The (1995)",Drama\n20,Another,Drama\n20,Other,Drama\n'
        '30,"Not closed,Drama\n40,Plain,Drama\n',
        encoding="utf-8",
    )
    rows = b"1,10,0.5,1440979200\n2,20,5,1440979200\n3,99,4.5,1440979200\n4,40,3,x\n5,40,0,1\n"
    (tmp_path / "ratings.csv").write_bytes(b"userId,movieId,rating,timestamp\n" + rows)
    (tmp_path / "tags.csv").write_bytes(b"userId,movieId,tag,timestamp\n")
    for source in (tmp_path, tmp_path / "ratings.csv"):
        outcome = read(source)
        assert outcome.column("title") == ["Movie, The (1995)", "Another", None, "Plain"]
        assert outcome.column("rating") == [0.5, 5.0, 4.5, 3.0]
        assert outcome.column("reviewed_at") == [A_DAY, A_DAY, A_DAY, None]
        assert outcome.reasons == [(6, "rating", "rating out of range")]
        assert outcome.report.files == ("ratings.csv",)
        assert outcome.report.scale == (0.5, 5)


def test_double_colons_with_no_rating_beyond_5_are_movielens(tmp_path: Path) -> None:
    (tmp_path / "ratings.dat").write_bytes(b"1::10::5::1440979200\n1::20::0.5::1440979200\n")
    (tmp_path / "movies.dat").write_bytes(b"10::Caf\xe9 (1990)::Drama\n20::A::B::Drama|War\n")
    (tmp_path / "users.dat").write_bytes(b"1::F::1::10::48067\n")
    outcome = read(tmp_path)
    assert (outcome.report.format, outcome.report.scale) == ("movielens", (0.5, 5))
    assert outcome.column("rating") == [5.0, 0.5]
    assert outcome.column("title") == ["Café (1990)", "A::B"]


@pytest.mark.parametrize(
    ("line", "reasons"),
    [
        (b"1::10::::1440979200", [(2, "rating", "empty rating")]),
        (b"1:::10::5::1440979200", []),
        (b"1:2::10::5::1440979200", []),
        (b"1::10::5::::1440979200", [(2, None, "too many fields")]),
        (b"1:::::5::1440979200", [(2, "video_id", "missing id")]),
    ],
)
def test_double_colons_are_found_from_the_left(
    tmp_path: Path, line: bytes, reasons: list[tuple[int, str | None, str]]
) -> None:
    good = b"1::10::5::1440979200\n"
    outcome = read_bytes(tmp_path, "ratings.dat", good + line + b"\n" + good)
    assert outcome.reasons == reasons
    if not reasons:
        customer, video, *_ = line.split(b"::")
        row = outcome.ratings[1]
        assert (row["customer_id"], row["video_id"]) == (customer.decode(), video.decode())


@pytest.mark.parametrize("telling", [b"0", b"6", b"10"])
def test_one_rating_of_0_or_above_5_anywhere_means_a_scale_of_0_to_10(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, telling: bytes
) -> None:
    monkeypatch.setattr(streams, "BLOCK_LINES", 50)
    rows = b"1::0054890::5::1440979200\n" * 5000 + b"2::0054890::" + telling + b"::1440979200\n"
    outcome = read_bytes(tmp_path, "ratings.dat", rows)
    assert (outcome.report.format, outcome.report.scale) == ("movietweetings", (0, 10))
    assert outcome.column("rating")[0] == 3.0
    assert (
        outcome.column("rating")[-1] == {b"0": 1.0, b"6": 3.4000000953674316, b"10": 5.0}[telling]
    )
    assert outcome.ratings[0]["video_id"] == "0054890"


@pytest.mark.parametrize("broken", [b"-1", b"978300760", b"nan", b""])
def test_a_value_on_neither_scale_decides_nothing(tmp_path: Path, broken: bytes) -> None:
    rows = b"1::10::4::978300760\n1::20::" + broken + b"::978300760\n"
    outcome = read_bytes(tmp_path, "ratings.dat", rows)
    assert outcome.report.format == "movielens"
    assert outcome.column("rating") == [4.0]


def test_a_scale_is_decided_over_all_part_files(tmp_path: Path) -> None:
    source = tmp_path / "parts"
    source.mkdir()
    (source / "a.dat").write_bytes(b"1::10::5::1440979200\n")
    (source / "b.dat").write_bytes(b"1::10::9::1440979200\n")
    outcome = read(source)
    assert outcome.report.format == "movietweetings"
    assert outcome.column("rating") == pytest.approx([3.0, 4.6])


def test_a_format_given_is_not_guessed(tmp_path: Path) -> None:
    rows = b"1::10::5::1440979200\n1::20::8::1440979200\n"
    given = read_bytes(tmp_path, "ratings.dat", rows, format="movielens")
    assert given.reasons == [(2, "rating", "rating out of range")]
    low = read_bytes(tmp_path, "low.dat", rows[:21], format="movietweetings")
    assert low.column("rating") == [3.0]


def test_u_data_takes_latin1_titles_from_u_item_and_ignores_the_splits_beside_it(
    tmp_path: Path,
) -> None:
    (tmp_path / "u.data").write_bytes(b"196\t242\t3\t881250949\n186\t302\t6\t891717742\n")
    (tmp_path / "u.item").write_bytes(b"242|Caf\xe9 (1996)|01-Jan-1997||http://x|0|1\n")
    (tmp_path / "ua.base").write_bytes(b"196\t242\t3\t881250949\n")
    outcome = read(tmp_path)
    assert outcome.column("title") == ["Café (1996)"]
    assert outcome.reasons == [(2, "rating", "rating out of range")]
    assert outcome.report.files == ("u.data",)
    assert read(tmp_path / "ua.base").column("title") == ["Café (1996)"]


TABLE = b"rating,title,customer_id,video_id,review_id,reviewed_at\n"


def test_a_table_may_quote_its_fields_over_several_lines(tmp_path: Path) -> None:
    rows = b'5,"Two\nlines, ""quoted""","c,1",v1,r,2015-08-31\n4,,c2,v2,,\n'
    outcome = read_bytes(tmp_path, "table.csv", TABLE + rows)
    assert outcome.column("title") == ['Two\nlines, "quoted"', None]
    assert outcome.column("customer_id") == ["c,1", "c2"]
    assert outcome.column("review_id") == ["r", None]
    assert outcome.column("line") == [2, 4]
    assert outcome.report.format == "table"


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b'5,"never closed,c9,v9,r,', "broken quoting"),
        (b'5,"closed" then not,c9,v9,r,', "broken quoting"),
        (b"5,bare\rreturn,c9,v9,r,", "broken quoting"),
        (b"5,few", "too few fields"),
        (b"5,t,c,v,r,d,e", "too many fields"),
    ],
)
def test_a_bad_table_row_costs_only_itself(tmp_path: Path, bad: bytes, reason: str) -> None:
    good = [b'3,"A title",c%d,v,r,\n' % number for number in range(20)]
    data = TABLE + b"".join([*good[:10], bad + b"\n", *good[10:]])
    outcome = read_bytes(tmp_path, "table.csv", data)
    assert outcome.column("customer_id") == [f"c{number}" for number in range(20)]
    assert outcome.reasons == [(12, None, reason)]
    assert outcome.rejects[0]["raw"] == bad.decode()


def test_a_quote_that_is_never_closed_does_not_cost_the_rest_of_the_file(tmp_path: Path) -> None:
    good = b"".join(b"3,t,c%d,v,r,\n" % number for number in range(20_000))
    outcome = read_bytes(tmp_path, "table.csv", TABLE + b'5,"open,c,v,r,\n' + good)
    assert outcome.reasons == [(2, None, "broken quoting")]
    assert outcome.report.rows_kept == 20_000


def test_each_reject_of_a_table_of_many_batches_is_there_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fields, "BLOCK_BYTES", 50)
    rows = b"".join(b"5,t,c%d,v,,\n" % n if n % 4 else b"few,%d\n" % n for n in range(100))
    outcome = read_bytes(tmp_path, "table.csv", TABLE + rows)
    assert outcome.column("line") == [n + 2 for n in range(100) if n % 4]
    assert [row["line"] for row in outcome.rejects] == [n + 2 for n in range(100) if not n % 4]


def test_nul_bytes_and_broken_utf8_in_a_table_are_treated_as_elsewhere(tmp_path: Path) -> None:
    rows = b"5,a\0b,c1,v,,\n5,\xff,c2,v,,\n5,t,c\0,v,,\n5,t,c,\xff,,\n"
    outcome = read_bytes(tmp_path, "table.csv", TABLE + rows)
    assert outcome.column("title") == ["a\ufffdb", "\ufffd"]
    assert outcome.reasons == [
        (4, "customer_id", "NUL byte in an id"),
        (5, "video_id", "broken UTF-8"),
    ]


def test_a_truncated_gzip_of_a_table_keeps_the_rows_before_the_cut(tmp_path: Path) -> None:
    compressor = zlib.compressobj(wbits=31)
    rows = TABLE + b'5,t,c,v,,\n5,t,c,v,,\n5,"t'
    data = compressor.compress(rows) + compressor.flush(zlib.Z_SYNC_FLUSH)
    outcome = read_bytes(tmp_path, "table.csv.gz", data)
    assert outcome.column("line") == [2, 3]
    assert outcome.reasons == [(4, None, "truncated gzip")]


def test_a_table_is_read_by_configured_names(tmp_path: Path) -> None:
    columns = TableColumns(customer_id="who", video_id="what", rating="stars", title="name")
    data = b"who,what,stars,name,rating\nc,v,2.5,T,99\n"
    [row] = read_bytes(tmp_path, "table.csv", data, columns=columns).ratings
    assert (row["customer_id"], row["video_id"], row["rating"], row["title"]) == (
        "c",
        "v",
        2.5,
        "T",
    )


def test_a_table_takes_no_titles_from_a_file_beside_it(tmp_path: Path) -> None:
    (tmp_path / "movies.csv").write_bytes(b"movieId,title,genres\nv,Not this one's,Drama\n")
    data = b"customer_id,video_id,rating\nc,v,5\n"
    assert read_bytes(tmp_path, "table.csv", data).column("title") == [None]


def test_parquet_values_of_any_type_are_read_as_their_text(tmp_path: Path) -> None:
    table = pa.table(
        {
            "customer_id": pa.array([7, 8, None, 9], pa.int64()),
            "video_id": pa.array([100.0, 200.0, 300.0, 400.0]),
            "rating": pa.array([4.5, float("nan"), 3.0, None], pa.float32()),
            "title": pa.array(["A", None, "C", "D"]).dictionary_encode(),
            "reviewed_at": pa.array([A_DAY] * 4, pa.timestamp("ns", "UTC")),
        }
    )
    pq.write_table(table, tmp_path / "table.parquet")
    outcome = read(tmp_path / "table.parquet")
    [row] = outcome.ratings
    assert (row["customer_id"], row["video_id"], row["rating"], row["title"]) == (
        "7",
        "100",
        4.5,
        "A",
    )
    assert (row["reviewed_at"], row["line"]) == (A_DAY, 1)
    assert outcome.reasons == [
        (2, "rating", "rating is not a number"),
        (3, "customer_id", "missing id"),
        (4, "rating", "empty rating"),
    ]
    assert json.loads(outcome.rejects[1]["raw"])["title"] == "C"


def test_a_damaged_row_group_of_parquet_costs_only_itself(tmp_path: Path) -> None:
    ids = [f"customer {number}" for number in range(60_000)]
    table = pa.table({"customer_id": ids, "video_id": ids, "rating": [3.0] * len(ids)})
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=20_000, compression="gzip")
    columns = pq.read_metadata(tmp_path / "t.parquet").row_group(1).column(0)
    data = bytearray((tmp_path / "t.parquet").read_bytes())
    for index in range(columns.total_compressed_size // 2):
        data[columns.dictionary_page_offset + index] ^= 0xFF
    outcome = read_bytes(tmp_path, "t.parquet", bytes(data))
    assert outcome.column("line") == [*range(1, 20_001), *range(40_001, 60_001)]
    assert outcome.reasons == [(20_001, None, "damaged Parquet")]


def test_part_files_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    source = tmp_path / "parts"
    (source / "sub").mkdir(parents=True)
    (source / "b.tsv.gz").write_bytes(gzip.compress(amazon(amazon_line(b"2"))))
    (source / "a.tsv").write_bytes(amazon(amazon_line(b"1")))
    (source / "sub" / "c.tsv").write_bytes(amazon(amazon_line(b"3", stars=b"9"), amazon_line(b"4")))
    for ignored in ("_SUCCESS", ".hidden", "README.md", "LICENSE"):
        (source / ignored).write_bytes(b"no ratings")
    outcome = read(source)
    assert outcome.column("customer_id") == ["1", "2", "4"]
    assert outcome.column("file") == ["a.tsv", "b.tsv.gz", "sub/c.tsv"]
    assert [row["file"] for row in outcome.rejects] == ["sub/c.tsv"]


def test_a_part_file_that_cannot_be_read_is_a_reject_and_the_others_are_kept(
    tmp_path: Path,
) -> None:
    source = tmp_path / "parts"
    source.mkdir()
    (source / "a.tsv").write_bytes(b"")
    (source / "b.tsv").write_bytes(amazon(GOOD))
    (source / "c.tsv").write_bytes(lzma.compress(amazon(GOOD)))
    (source / "d.parquet").write_bytes(b"PAR1 and nothing like it")
    outcome = read(source)
    assert outcome.report.rows_kept == 1
    assert outcome.reasons == [(1, None, "unreadable file")] * 3
    empty, zipped, damaged = (row["raw"] for row in outcome.rejects)
    assert "it is empty" in empty
    assert "xz" in zipped
    assert "damaged Parquet" in damaged


def test_two_formats_in_one_folder_are_an_error_that_names_them(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_bytes(amazon(GOOD))
    (tmp_path / "b.csv").write_bytes(TABLE + b"5,t,c,v,,\n")
    with pytest.raises(RatingsError, match=r"got several: a.tsv is amazon, b.csv is table"):
        read(tmp_path)


def test_two_movielens_ratings_files_in_one_folder_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "ratings.dat").write_bytes(b"1::10::5::1440979200\n")
    (tmp_path / "u.data").write_bytes(b"196\t242\t3\t881250949\n")
    with pytest.raises(RatingsError, match=r"expected one ratings file in .*ratings.dat, u.data"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("empty.tsv", b"", r"cannot read .*empty.tsv: expected Amazon .*; it is empty"),
        ("empty.gz", gzip.compress(b"", mtime=0), "it is empty"),
        ("blank.tsv", b"\n\n \n", "it holds only blank lines"),
        ("x.txt", b"hello\n", "expected Amazon .* begins with 'hello'"),
        ("x.tsv", b"customer_id\tproduct_id\n1\t2\n", "needs the column star_rating; it has cus"),
        ("x.zst", b"\x28\xb5\x2f\xfd" + b"\xff" * 20, "corrupt Zstandard within its first line"),
        ("x.xz", lzma.compress(b"x"), "with xz; expected gzip, Zstandard, bzip2 or no compression"),
        ("x.lz4", b"\x04\x22\x4d\x18....", "compressed with LZ4"),
        ("x.zip", b"PK\x03\x04....", "compressed with zip"),
        (
            "x.gz",
            gzip.compress(AMAZON_HEADER, mtime=0)[:30],
            "truncated gzip within its first line",
        ),
        ("header.tsv", AMAZON_HEADER + b"\n", "expected ratings, got a header and no rows"),
        (
            "bad.tsv",
            amazon(amazon_line(stars=b"x"), b"short", amazon_line(stars=b"y")),
            r"none of the 3 rows of .*bad.tsv could be read; most often: rating is not .* \(2\)",
        ),
        ("list.parquet", None, r"its column rating is of type list.*; expected text, numbers"),
    ],
)
def test_where_nothing_can_be_read_the_error_says_why_and_nothing_is_left(
    tmp_path: Path, name: str, data: bytes | None, message: str
) -> None:
    source = tmp_path / name
    if data is None:
        pq.write_table(pa.table({"customer_id": [1], "video_id": [1], "rating": [[5]]}), source)
    else:
        source.write_bytes(data)
    with pytest.raises(RatingsError, match=message):
        read_ratings(source, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*"))


def test_a_missing_source_and_a_folder_without_data_are_errors(tmp_path: Path) -> None:
    with pytest.raises(RatingsError, match=r"no such file or folder: .*nowhere"):
        read_ratings(tmp_path / "nowhere", tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "README").write_text("no ratings")
    with pytest.raises(RatingsError, match="there is no data file in this folder"):
        read_ratings(tmp_path / "folder", tmp_path)
    (tmp_path / "folder" / "notes.txt").write_text("no ratings")
    with pytest.raises(RatingsError, match=r"cannot read .*folder: notes.txt: expected Amazon"):
        read_ratings(tmp_path / "folder", tmp_path)


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    (tmp_path / "reviews.tsv.gz").write_bytes(gzip.compress(b"".join(some_reviews(5000))))
    for into in ("one", "two"):
        read_ratings(tmp_path / "reviews.tsv.gz", tmp_path / into)
    for name in ("ratings.parquet", "rejects.parquet"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


@pytest.mark.parametrize("name", ["reviews.tsv", "reviews.tsv.gz", "reviews.tsv.zst", "table.csv"])
def test_how_much_is_done_at_once_changes_no_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    lines = some_reviews(4000)
    lines[7::50] = [b"short\n"] * len(lines[7::50])
    source = tmp_path / "parts"
    source.mkdir()
    for part in range(6):
        text = b"".join([lines[0], *lines[1 + part :: 6]])
        compress = {".gz": gzip.compress, ".zst": pa.Codec("zstd").compress}
        if name.endswith(".csv"):
            text = text.replace(b"\t", b",")
        (source / f"{part}-{name}").write_bytes(compress.get(Path(name).suffix, bytes)(text))
    monkeypatch.setattr(streams, "BLOCK_BYTES", 10_000)
    monkeypatch.setattr(streams, "_CHUNK_BYTES", 5_000)
    for workers, files, into in ((1, 1, "one"), (4, 4, "many")):
        monkeypatch.setattr(reading, "_WORKERS", workers)
        monkeypatch.setattr(reading, "_FILES_AT_ONCE", files)
        monkeypatch.setattr(reading, "_AHEAD_BYTES", 20_000 * files)
        report = read_ratings(source, tmp_path / into)
        assert (report.rows_kept, report.rows_rejected) == (3920, 80)
    for written in ("ratings.parquet", "rejects.parquet"):
        assert (tmp_path / "one" / written).read_bytes() == (
            tmp_path / "many" / written
        ).read_bytes()


SPOILERS: tuple[Callable[[list[bytes]], bytes], ...] = (
    lambda fields: b"\t".join(fields[:9]),
    lambda fields: b"\t".join([*fields, b"one too many"]),
    *(
        lambda fields, at=at, value=value: b"\t".join([*fields[:at], value, *fields[at + 1 :]])
        for at, value in [
            (1, b""),
            (1, b"\xc2\xa0"),
            (1, b"4\x002"),
            (3, b"B00\xff"),
            (7, b""),
            (7, b"five"),
            (7, b"nan"),
            (7, b"9"),
            (7, b"4\xff"),
        ]
    ),
)


def test_malformed_lines_of_every_kind_cost_no_good_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "BLOCK_BYTES", 50_000)
    monkeypatch.setattr(streams, "_CHUNK_BYTES", 20_000)
    lines = some_reviews(6000)
    good = read_bytes(tmp_path, "good.tsv", b"".join(lines))
    generator = random.Random(3)
    spoiled = {line: generator.choice(SPOILERS) for line in generator.sample(range(1, 6001), 60)}
    for line, spoil in spoiled.items():
        lines[line] = spoil(lines[line].rstrip(b"\n").split(b"\t")) + b"\n"
    outcome = read_bytes(tmp_path, "spoiled.tsv", b"".join(lines))
    kept = [row | {"file": "spoiled.tsv"} for row in good.ratings if row["line"] - 1 not in spoiled]
    assert outcome.ratings == kept
    assert [row["line"] - 1 for row in outcome.rejects] == sorted(spoiled)
    assert [row["raw"] for row in outcome.rejects] == [
        lines[line].rstrip(b"\n").decode(errors="replace")[:500] for line in sorted(spoiled)
    ]


def test_a_file_without_any_good_line_says_so_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_bytes(amazon(*[amazon_line(stars=b"five")] * 1000))
    with pytest.raises(RatingsError) as caught:
        read_ratings(tmp_path / "x.tsv", tmp_path / "out")
    assert str(caught.value) == (
        f"none of the 1000 rows of {tmp_path / 'x.tsv'} could be read; "
        "most often: rating is not a number (1000)"
    )


# Any text that a TSV field can hold: no separator, no line feed, no surrogate.
FIELD = st.text(
    st.characters(blacklist_characters="\t\n\r\0", blacklist_categories=("Cs",)), max_size=20
)
IDENTIFIER = FIELD.filter(lambda text: bool(text.strip()))
ROW = st.tuples(IDENTIFIER, IDENTIFIER, st.floats(1, 5, width=32), FIELD, FIELD)
PROPERTY = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def assert_same(outcome_rows: list[dict], rows: list[tuple[str, str, float, str, str]]) -> None:
    assert [
        (row["customer_id"], row["video_id"], row["rating"], row["title"], row["review_id"])
        for row in outcome_rows
    ] == [
        (
            customer,
            video,
            rating,
            title if title.strip() else None,
            review if review.strip() else None,
        )
        for customer, video, rating, title, review in rows
    ]


@PROPERTY
@given(st.lists(ROW, min_size=1, max_size=20))
def test_what_is_written_as_amazon_reviews_comes_back(
    tmp_path: Path, rows: list[tuple[str, str, float, str, str]]
) -> None:
    lines = [
        amazon_line(
            customer.encode(),
            video.encode(),
            repr(rating).encode(),
            title=title.encode(),
            review=review.encode(),
        )
        for customer, video, rating, title, review in rows
    ]
    outcome = read_bytes(tmp_path, "reviews.tsv", amazon(*lines))
    assert_same(outcome.ratings, rows)


@PROPERTY
@given(st.lists(ROW, min_size=1, max_size=20))
def test_what_the_csv_module_writes_comes_back(
    tmp_path: Path, rows: list[tuple[str, str, float, str, str]]
) -> None:
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(["customer_id", "video_id", "rating", "title", "review_id"])
    writer.writerows(rows)
    outcome = read_bytes(tmp_path, "table.csv", file.getvalue().encode())
    assert_same(outcome.ratings, rows)


@PROPERTY
@given(st.lists(st.binary(max_size=60), max_size=20))
def test_no_bytes_break_the_reader_and_every_row_is_accounted_for(
    tmp_path: Path, lines: list[bytes]
) -> None:
    for name, data in (
        ("reviews.tsv", amazon(GOOD, *lines, GOOD)),
        ("table.csv", TABLE + b"\n".join([b"5,t,c,v,,", *lines, b"5,t,c,v,,"])),
    ):
        outcome = read_bytes(tmp_path, name, data)  # checks the sums
        assert outcome.report.rows_kept >= 1
        assert outcome.ratings[0]["line"] == 2
        numbers = [row["line"] for row in (*outcome.ratings, *outcome.rejects)]
        assert len(set(numbers)) == len(numbers)


@pytest.mark.parametrize(
    ("name", "format_name", "rows", "titled", "first"),
    [
        ("movietweetings", "movietweetings", 141_695, 141_695, ("1", "0054890", 4.6)),
        ("ml-100k", "movielens", 100_000, 100_000, ("196", "242", 3.0)),
        ("amazon-us-mobile-electronics-85rows", "amazon", 85, 85, ("20422322", "B00MC4CED8", 5.0)),
    ],
)
def test_real_ratings_are_read_whole(
    tmp_path: Path,
    real_data: Callable[[str], Path],
    name: str,
    format_name: str,
    rows: int,
    titled: int,
    first: tuple[str, str, float],
) -> None:
    report = read_ratings(real_data(name), tmp_path)
    assert (report.format, report.rows_kept, report.rows_rejected) == (format_name, rows, 0)
    assert report.dates_missing == 0
    table = pq.read_table(tmp_path / "ratings.parquet")
    assert table.num_rows - table["title"].null_count == titled
    row = table.slice(0, 1).to_pylist()[0]
    assert (row["customer_id"], row["video_id"], row["rating"]) == pytest.approx(first)


def landed(content: bytes, folder: Path, format: str = "auto") -> tuple[ReadReport, list[dict]]:
    """Read one file as it landed; return the report and the rejects."""
    path = folder / "object"
    path.write_bytes(content)
    report = read_file(path, folder / "read", name="landing/object", format=format)
    assert pq.read_metadata(folder / "read" / "ratings.parquet").num_rows == report.rows_kept
    return report, pq.read_table(folder / "read" / "rejects.parquet").to_pylist()


def test_a_file_that_lands_is_read_under_the_name_that_it_has_there(tmp_path: Path) -> None:
    report, rejects = landed(amazon(amazon_line(), b"rubbish"), tmp_path)
    ratings = pq.read_table(tmp_path / "read" / "ratings.parquet").to_pylist()
    assert [row["file"] for row in ratings + rejects] == ["landing/object"] * 2
    assert (report.rows_kept, report.rows_rejected) == (1, 1)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "unreadable file"),
        (b"no header of ours\nat all\n", "unreadable file"),
        (b"customer_id,video_id,rating\n1,2,many\n", "rating is not a number"),
        (b"1::2::3::978300760\n", "unreadable file"),
    ],
)
def test_whatever_is_wrong_with_a_file_that_lands_is_a_reject(
    content: bytes, reason: str, tmp_path: Path
) -> None:
    report, rejects = landed(content, tmp_path)
    assert report.rows_kept == 0
    assert [reject["reason"] for reject in rejects] == [reason]


def test_a_file_whose_scale_it_does_not_tell_says_what_is_to_be_done(tmp_path: Path) -> None:
    _, (reject,) = landed(b"1::2::3::978300760\n", tmp_path)
    assert "expected a format to be named" in reject["raw"]
    report, rejects = landed(b"1::2::3::978300760\n", tmp_path, "movietweetings")
    assert (report.rows_kept, report.format, rejects) == (1, "movietweetings", [])


def test_what_was_read_before_a_file_broke_off_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "BLOCK_LINES", 20)

    def breaking(path: Path, layout: Layout) -> Iterator[Portion]:
        for number, portion in enumerate(read_portions(path, layout)):
            if number == 2:
                raise RatingsError("the disk has gone")
            yield portion

    monkeypatch.setattr(reading, "read_portions", breaking)
    report, rejects = landed(b"".join(some_reviews(200)), tmp_path)
    assert 0 < report.rows_kept < 200
    assert [(r["reason"], r["raw"]) for r in rejects] == [("unreadable file", "the disk has gone")]
    assert rejects[0]["line"] == report.rows_kept + 2, "the header is line 1"
