"""How tables and plots are shown as metadata in the Dagster UI.

What belongs here: rendering. What does not: choosing what is worth showing.
"""

import base64
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pyarrow.parquet as pq
from dagster import MarkdownMetadataValue, MetadataValue

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def as_markdown(path: Path, rows: int) -> str:
    """Return the first rows of a Parquet file, or of a pattern of files, as a Markdown table."""
    found: list[pd.DataFrame] = []
    for file in sorted(path.parent.glob(path.name)):
        wanted = rows - sum(map(len, found))
        if wanted:
            batch = next(pq.ParquetFile(file).iter_batches(batch_size=wanted), None)
            found += [] if batch is None else [batch.to_pandas()]
    return frame_as_markdown(pd.concat(found)) if found else "none"


def frame_as_markdown(frame: pd.DataFrame, decimals: int = 4) -> str:
    """Return a small DataFrame as a Markdown table, without its index."""
    rows = [
        [f"{v:.{decimals}f}" if isinstance(v, float) else str(v) for v in row]
        for row in frame.itertuples(index=False)
    ]
    lines = [list(map(str, frame.columns)), ["---"] * len(frame.columns), *rows]
    escaped = [[cell.replace("|", "\\|").replace("\n", " ") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in escaped)


def as_png(figure: "Figure") -> bytes:
    """Return a matplotlib figure as PNG."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=100, bbox_inches="tight")
    return buffer.getvalue()


def as_image(png: bytes) -> MarkdownMetadataValue:
    """Return a PNG as metadata that the UI shows as a picture."""
    return MetadataValue.md(f"![plot](data:image/png;base64,{base64.b64encode(png).decode()})")
