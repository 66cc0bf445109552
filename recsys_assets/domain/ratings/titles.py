"""Titles that come in a file beside the ratings: MovieLens and MovieTweetings.

What belongs here: which file that is and how its lines give a video's title. What does not: titles
that stand in the ratings themselves, which are a column like others.
"""

import csv
from collections.abc import Iterator
from pathlib import Path

from recsys_assets.domain.ratings.formats import Container, Layout
from recsys_assets.domain.ratings.streams import read_blocks


def titles_beside(ratings: Path, layout: Layout) -> dict[str, str]:
    """Title of each video, from the title file in the folder of `ratings`; empty without one.

    ``movies.csv`` belongs to ratings with a header, ``movies.dat`` to ratings with ``::``,
    ``u.item`` to those with tabs. Lines are UTF-8 or, where they are not, Latin-1. A line without
    id and title is passed over; of two titles for one video the smaller counts.

    Raises
    ------
    RatingsError
        If the title file is compressed in a way that is not known.
    """
    if layout.container != Container.DELIMITED:
        name, split = "movies.csv", _split_csv
    elif layout.separator == b"::":
        name, split = "movies.dat", _split_dat
    else:
        name, split = "u.item", _split_item
    file = ratings.with_name(name)
    titles: dict[str, str] = {}
    if file.is_file():
        for line in _lines(file):
            video, title = split(line)
            if video.strip() and title.strip():
                titles[video] = min(title, titles.get(video, title))
    return titles


def _lines(file: Path) -> Iterator[str]:
    for block in read_blocks(file):
        for line in block.data.splitlines():
            try:
                yield line.decode()
            except UnicodeDecodeError:
                yield line.decode("latin-1")


def _split_csv(line: str) -> tuple[str, str]:
    # Line by line, as a title has no line break but may have a quote that is not closed.
    video, title, *_ = [*next(csv.reader([line]), []), "", ""]
    return video, title


def _split_dat(line: str) -> tuple[str, str]:
    # The genres stand last; a title may hold the separator.
    video, _, rest = line.partition("::")
    return video, rest.rpartition("::")[0] or rest


def _split_item(line: str) -> tuple[str, str]:
    video, title, *_ = [*line.split("|"), ""]
    return video, title
