"""Recognising a format by header and first lines."""

import pytest

from recsys_assets.domain.ratings.formats import (
    Container,
    Scale,
    TableColumns,
    Wanted,
    recognise_lines,
    recognise_names,
)
from recsys_assets.domain.ratings.rejects import RatingsError

AUTO = Wanted()
AMAZON = "marketplace\tcustomer_id\treview_id\tproduct_id\tproduct_title\tstar_rating\treview_date"


def test_amazon_is_known_by_its_header_wherever_its_columns_stand() -> None:
    layout = recognise_lines(["", AMAZON], AUTO)
    assert (layout.format, layout.container, layout.header_line) == ("amazon", "delimited", 2)
    assert layout.width == 7
    assert layout.positions == {
        "customer_id": 1,
        "video_id": 3,
        "rating": 5,
        "title": 4,
        "reviewed_at": 6,
        "review_id": 2,
    }
    assert layout.names["video_id"] == "product_id"


def test_movielens_csv_is_known_by_its_header() -> None:
    layout = recognise_lines(["userId,movieId,rating,timestamp", "1,2,3.5,4"], AUTO)
    assert (layout.format, layout.container) == ("movielens", Container.CSV)
    assert layout.positions == {"customer_id": 0, "video_id": 1, "rating": 2, "reviewed_at": 3}
    assert layout.scale == Scale(0.5, 5)


@pytest.mark.parametrize("line", ["196\t242\t3\t881250949", "\n196\t242\t3\t881250949"])
def test_four_tab_separated_fields_with_numbers_last_are_movielens(line: str) -> None:
    layout = recognise_lines(line.split("\n"), AUTO)
    assert (layout.format, layout.separator, layout.header_line) == ("movielens", b"\t", 0)


def test_a_broken_first_line_does_not_hide_the_separator() -> None:
    assert recognise_lines(["1::", "1::2::3::4"], AUTO).separator == b"::"


def test_a_table_is_known_by_its_configured_names_even_where_another_format_fits() -> None:
    columns = TableColumns(customer_id="userId", video_id="movieId", title=None)
    header = ["movieId,stars,userId,rating"]
    assert recognise_lines(header, AUTO).format == "movielens"
    layout = recognise_lines(header, Wanted("auto", columns))
    assert layout.format == "table"
    assert layout.positions == {"customer_id": 2, "video_id": 0, "rating": 3}


def test_parquet_columns_count_as_a_header() -> None:
    names = ["customer_id", "product_id", "star_rating", "extra"]
    assert recognise_names(names, AUTO).format == "amazon"
    assert recognise_names(["video_id", "rating", "customer_id"], AUTO).format == "table"


@pytest.mark.parametrize(
    ("lines", "wanted", "message"),
    [
        ([""], AUTO, "expected Amazon .* or MovieLens .* or MovieTweetings .* it is empty"),
        (["", "\r", ""], AUTO, "it holds only blank lines"),
        (["hello"], AUTO, "expected Amazon .*; it begins with 'hello'"),
        (["\x89PNG\r\x1a\0"], AUTO, r"expected Amazon .*; it begins with .*PNG\\r"),
        (
            ["customer_id\tproduct_id\treview_date"],
            AUTO,
            "as amazon it needs the column star_rating; it has customer_id, product_id, review_d",
        ),
        (["customer_id,stars"], AUTO, "as table it needs the columns video_id, rating; it has cu"),
        (["userId,movieId,tag,timestamp"], AUTO, "as movielens it needs the column rating; it ha"),
        (["1::2::3::4"], Wanted("amazon"), "as amazon it needs the columns customer_id, product_"),
        (["1,2,3"], Wanted("movietweetings"), r"expected MovieTweetings \(ratings.dat with ::\); "),
        (
            ["customer_id,video_id,rating"],
            Wanted("table", TableColumns(title="name")),
            "as table it needs the column name; it has customer_id, video_id, rating",
        ),
    ],
)
def test_what_is_not_recognised_says_what_was_expected_and_what_came(
    lines: list[str], wanted: Wanted, message: str
) -> None:
    with pytest.raises(RatingsError, match=message):
        recognise_lines(lines, wanted)


def test_an_unknown_format_is_refused_with_the_known_ones() -> None:
    with pytest.raises(RatingsError, match="unknown format 'netflix': expected one of auto, ama"):
        Wanted("netflix")
