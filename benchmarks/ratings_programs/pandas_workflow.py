"""The workflow with pandas and the SageMaker Python SDK 2, as its users write it.

    python pandas_workflow.py REVIEWS.tsv.gz s3://BUCKET/PREFIX STAGES.json

What belongs here: those few lines, unimproved, with the rules that the platform has too: malformed
rows are dropped, both thresholds count valid rows at once, and the first review of a pair stays,
which is the latest, as files begin with the newest. What does not: anything of this project, which
the environment of the SDK does not have. Figures of its stages go to the last file that is named.
"""

import io
import sys
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

import boto3
import numpy as np
import pandas as pd
from sagemaker.amazon.common import write_spmatrix_to_sparse_tensor
from scipy.sparse import csr_matrix, lil_matrix
from stages import Stages

COLUMNS = ["customer_id", "product_id", "product_title", "star_rating", "review_date"]
TEST_CHUNK_ROWS = 10_000


def read(path: str) -> pd.DataFrame:
    """Return the valid rows."""
    reviews = pd.read_csv(
        path,
        sep="\t",
        dtype=str,
        quoting=3,
        on_bad_lines="skip",
        encoding_errors="replace",
    )
    reviews = reviews[COLUMNS].copy()
    reviews["star_rating"] = pd.to_numeric(reviews["star_rating"], errors="coerce")
    reviews = reviews.dropna()  # of lines with too few fields, too
    reviews = reviews[reviews["star_rating"].between(1, 5)]
    return reviews[~reviews["product_id"].str.contains("\ufffd", regex=False)]


def keep_frequent(reviews: pd.DataFrame) -> pd.DataFrame:
    """Return one review a pair, without the long tail, shuffled, with indices and split."""
    customers = reviews["customer_id"].value_counts()
    products = reviews["product_id"].value_counts()
    customers = customers[customers >= 5]
    products = products[products >= 10]
    kept = reviews.merge(pd.DataFrame({"customer_id": customers.index}))
    kept = kept.merge(pd.DataFrame({"product_id": products.index}))
    kept = kept.drop_duplicates(["customer_id", "product_id"])
    kept["customer"] = pd.factorize(kept["customer_id"])[0]
    kept["product"] = pd.factorize(kept["product_id"])[0]
    kept = kept.sample(frac=1, random_state=0)
    share = np.arange(len(kept)) / len(kept)
    kept["split"] = np.select([share < 0.6, share < 0.8], ["train", "validate"], "test")
    return kept


def one_hot(ratings: pd.DataFrame, customers: int, products: int) -> tuple[csr_matrix, np.ndarray]:
    """Return the features and labels of some ratings."""
    features = lil_matrix((len(ratings), customers + products), dtype="float32")
    labels = []
    rows = zip(ratings["customer"], ratings["product"], ratings["star_rating"], strict=True)
    for row, (customer, product, stars) in enumerate(rows):
        features[row, customer] = 1
        features[row, customers + product] = 1
        labels.append(stars)
    return features.tocsr(), np.array(labels, dtype="float32")


def encoded(features: csr_matrix, labels: np.ndarray) -> io.BytesIO:
    """Return RecordIO-protobuf."""
    buffer = io.BytesIO()
    write_spmatrix_to_sparse_tensor(buffer, features, labels)
    buffer.seek(0)
    return buffer


def main() -> None:
    """Run the whole workflow."""
    source, target, measured = sys.argv[1:]
    stages = Stages()
    with stages.stage("reading"):
        reviews = read(source)
    with stages.stage("filtering"):
        ratings = keep_frequent(reviews)
    with stages.stage("matrix"):
        customers, products = ratings["customer"].nunique(), ratings["product"].nunique()
        matrices = {
            split: one_hot(ratings[ratings["split"] == split], customers, products)
            for split in ("train", "validate", "test")
        }
    with stages.stage("encoding"):
        files = {}
        for split, (features, labels) in matrices.items():
            step = TEST_CHUNK_ROWS if split == "test" else max(len(labels), 1)
            for first in range(0, len(labels), step):
                part = slice(first, first + step)
                name = f"{split}/part-{first // step:05d}.recordio"
                files[name] = encoded(features[part], labels[part])
    with stages.stage("uploading"):
        bucket, prefix = urlsplit(target).netloc, urlsplit(target).path.strip("/")
        s3 = boto3.client("s3")
        for name, file in files.items():
            s3.upload_fileobj(file, bucket, f"{prefix}/{name}")
    versions = ", ".join(f"{name} {version(name)}" for name in ("pandas", "scipy", "sagemaker"))
    stages.write(Path(measured), ratings=len(ratings), versions=versions)


if __name__ == "__main__":
    main()
