"""Small ratings written out, shared by tests."""

import datetime as dt
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

SCHEMA = pa.schema(
    [
        ("customer_id", pa.string()),
        ("video_id", pa.string()),
        ("title", pa.string()),
        ("rating", pa.float32()),
        ("reviewed_at", pa.timestamp("s")),
        ("review_id", pa.string()),
    ]
)


def write_ratings(path: Path, rows: Sequence[tuple[Any, ...]]) -> Path:
    """Write (customer, video, rating[, day of 2020, review id, title]) rows as checked ratings."""
    records = []
    for row in rows:
        customer, video, rating, day, review_id, title = (*row, *[None] * (6 - len(row)))
        records.append(
            {
                "customer_id": customer,
                "video_id": video,
                "rating": rating,
                "title": title,
                "reviewed_at": None
                if day is None
                else dt.datetime(2020, 1, 1) + dt.timedelta(days=day),
                "review_id": review_id,
            }
        )
    pq.write_table(pa.Table.from_pylist(records, schema=SCHEMA), path)
    return path


def random_ratings(customers: int = 40, videos: int = 30, seed: int = 0) -> list[tuple[Any, ...]]:
    """Return every third pair or so, rated by customer and video biases."""
    rng = np.random.default_rng(seed)
    generous, good = rng.normal(0, 0.5, customers), rng.normal(0, 0.7, videos)
    return [
        (
            f"c{c}",
            f"v{v}",
            float(np.clip(np.round(3.5 + generous[c] + good[v]), 1, 5)),
            int(rng.integers(300)),
            f"R{c}-{v}",
            f"Video {v}",
        )
        for c in range(customers)
        for v in range(videos)
        if rng.random() < 0.4
    ]
