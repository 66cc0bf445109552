"""Reference points: what the parts of the way cost where nothing else is done.

    python references.py gunzip REVIEWS.tsv.gz STAGES.json
    python references.py duckdb REVIEWS.tsv.gz STAGES.json

What belongs here: ISA-L's gunzip whose output is dropped, and the preprocessing in plain DuckDB,
without a rejects table or a resolution of titles. What does not: anything of this project.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
from isal import igzip
from stages import Stages

_BUFFER_BYTES = 1 << 20
_MEMORY_LIMIT = "2GB"  # else it is four fifths of the machine's

_READ = """
CREATE TABLE reviews AS
SELECT customer_id, product_id, product_title, review_id,
    TRY_CAST(star_rating AS FLOAT) AS rating, TRY_CAST(review_date AS DATE) AS reviewed_at
FROM read_csv(?, delim = '\t', quote = '', escape = '', header = true, all_varchar = true,
    ignore_errors = true)
WHERE customer_id <> '' AND product_id <> '' AND TRY_CAST(star_rating AS FLOAT) BETWEEN 1 AND 5
"""
_FILTER = """
CREATE TABLE pairs AS
SELECT customer_id, product_id, any_value(product_title) AS title,
    arg_max(rating, (reviewed_at, review_id)) AS rating,
    md5(concat('0|', customer_id, '|', product_id)) AS hash
FROM reviews
WHERE customer_id IN (SELECT customer_id FROM reviews GROUP BY ALL HAVING count(*) >= 5)
    AND product_id IN (SELECT product_id FROM reviews GROUP BY ALL HAVING count(*) >= 10)
GROUP BY customer_id, product_id
"""
_WRITE = """
COPY (
    SELECT pairs.*, customers.index AS customer, products.index AS product
    FROM pairs
    JOIN (SELECT customer_id, row_number() OVER (ORDER BY customer_id) - 1 AS index
        FROM (SELECT DISTINCT customer_id FROM pairs)) AS customers USING (customer_id)
    JOIN (SELECT product_id, row_number() OVER (ORDER BY product_id) - 1 AS index
        FROM (SELECT DISTINCT product_id FROM pairs)) AS products USING (product_id)
    ORDER BY hash
) TO '{path}' (FORMAT parquet)
"""


def gunzip(source: str, stages: Stages) -> None:
    """Decompress a file and drop what comes out."""
    buffer = bytearray(_BUFFER_BYTES)
    with stages.stage("reading"), igzip.open(source, "rb") as file:
        while file.readinto(buffer):
            pass


def preprocess(source: str, stages: Stages) -> None:
    """Read, filter and index with SQL."""
    with TemporaryDirectory() as folder, duckdb.connect(f"{folder}/reviews.duckdb") as db:
        db.execute(f"SET memory_limit = '{_MEMORY_LIMIT}'")
        with stages.stage("reading"):
            db.execute(_READ, [source])
        with stages.stage("filtering"):
            db.execute(_FILTER)
            db.execute(_WRITE.format(path=f"{folder}/ratings.parquet"))


def main() -> None:
    """Run the program that the command line names."""
    name, source, measured = sys.argv[1:]
    stages = Stages()
    {"gunzip": gunzip, "duckdb": preprocess}[name](source, stages)
    stages.write(Path(measured))


if __name__ == "__main__":
    main()
