"""From a file of ratings to RecordIO in S3: this project beside the same done with pandas.

    python benchmarks/ratings_path.py --sdk PYTHON                # the tables
    python benchmarks/ratings_path.py --rows 400000 --repeats 5   # of one size
    python benchmarks/ratings_path.py --malformed                 # what malformed lines cost

Ratings are generated, and everyone reads the same file. Sizes up to that of the Digital Video set
have review bodies as long as real ones; larger ones have bodies of one word, and pandas is not run
on them. PYTHON is an interpreter that has the SageMaker Python SDK 2:
``python -m recsys_assets_tests.contract.environments sagemaker-sdk-2`` makes one and prints where
it is. Without it, pandas is shown as not run. Objects go to the platform's local store.

Every figure comes of a process of its own, started by a small one that measures it. Seconds of
stages are without start-up, those of whole processes with it; memory is the largest resident set,
libraries included. All of pandas is one process: a stage's memory is the peak until its end.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import duckdb
import psutil
from isal import igzip
from peers.arguments import positive
from peers.measuring import Usage, measure

from recsys_assets.domain.ratings.generating import generate_amazon_reviews
from recsys_assets.domain.ratings.reading import RatingsError, read_ratings
from recsys_assets.services.control import start_services, stop_services
from recsys_assets.settings import Settings

_PROGRAMS = Path(__file__).with_name("ratings_programs")
_DIGITAL_VIDEO_ROWS = 4_057_147
_SIZES = (400_000, _DIGITAL_VIDEO_ROWS, 10 * _DIGITAL_VIDEO_ROWS)
_REPEATS = 3
_REPEATED_ROWS = 1_000_000  # above, a size is measured once unless told otherwise
_STAGES = ("reading", "filtering", "matrix", "encoding", "uploading")
_WHOLE, _BY_DAGSTER = "whole process", "whole process, by Dagster"
_PANDAS, _GUNZIP, _ZCAT, _DUCKDB = "pandas", "ISA-L's gunzip", "zcat", "plain DuckDB"
_HEADINGS = ("wall, s", "CPU, s", "peak memory, MB")  # of `_cells`
_STARS = {b"1", b"2", b"3", b"4", b"5"}


@dataclass(frozen=True)
class Figures:
    """What one run of a program, or the median of several, cost.

    Attributes
    ----------
    process
        All of it.
    stages
        Its parts, if it tells them.
    ratings
        How many have passed the filter, 0 if it does not tell.
    versions
        Of what was measured, if it tells them.
    """

    process: Usage
    stages: Mapping[str, Usage]
    ratings: int = 0
    versions: str = ""


@dataclass(frozen=True)
class Bench:
    """Where programs are run.

    Attributes
    ----------
    scratch
        Folder for what they leave.
    environment
        Variables for what needs the local services: where they are, and keys to them.
    store
        ``s3://`` URI that may be written to.
    """

    scratch: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    store: str = ""

    def ours(self, part: str, source: Path) -> Figures:
        """Run a stage, or more, of this project."""
        return self._measured(sys.executable, _PROGRAMS / "ours.py", part, source, self.scratch)

    def pandas(self, python: Path, source: Path) -> Figures:
        """Run the workflow with pandas in the environment of the SDK."""
        program = _PROGRAMS / "pandas_workflow.py"
        return self._measured(python, program, source, f"{self.store}/pandas")

    def reference(self, name: str, source: Path) -> Figures:
        """Run one of ``references.py``."""
        return self._measured(sys.executable, _PROGRAMS / "references.py", name, source)

    def zcat(self, source: Path) -> Figures:
        """Run the system's gunzip."""
        command: list[str | Path] = ["sh", "-c", 'zcat "$1" > /dev/null', "zcat", source]
        return Figures(measure(command, self.scratch / "log.txt"), {})

    def _measured(self, *command: str | Path) -> Figures:
        told = self.scratch / "stages.json"
        process = measure([*command, told], self.scratch / "log.txt", self.environment)
        content = json.loads(told.read_text())
        stages = {name: Usage(**stage) for name, stage in content["stages"].items()}
        return Figures(process, stages, content["ratings"], content["versions"])


def main() -> None:
    """Print the tables."""
    arguments = _arguments()
    memory = psutil.virtual_memory().total / 2**30
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, {memory:.0f} GB, Python "
        f"{platform.python_version()}; load when started {os.getloadavg()[0]:.1f}"
    )
    with tempfile.TemporaryDirectory(prefix="recsys-") as name:
        folder = Path(name)
        data = arguments.data or folder / "data"
        data.mkdir(parents=True, exist_ok=True)
        if arguments.malformed is not None:
            for rows in arguments.rows or [_DIGITAL_VIDEO_ROWS]:
                repeats = arguments.repeats or _REPEATS
                _compare_malformed(Bench(folder), data, rows, arguments.malformed, repeats)
            return
        grown: dict[int, Figures] = {}
        with _services(folder / "state") as (environment, store):
            bench = Bench(folder, environment, store)
            for rows in arguments.rows or _SIZES:
                repeats = arguments.repeats or (_REPEATS if rows <= _REPEATED_ROWS else 1)
                grown[rows] = _compare(bench, _generated(data, rows), rows, arguments.sdk, repeats)
        _print_growth(grown)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--rows",
        type=positive,
        nargs="+",
        help="sizes (400000 4057147 40571470; with --malformed 4057147)",
    )
    parser.add_argument("--sdk", type=Path, metavar="PYTHON", help="runs the workflow with pandas")
    parser.add_argument(
        "--repeats",
        type=positive,
        help="runs that figures are medians of (3 up to 1,000,000 rows and with --malformed, "
        "1 above)",
    )
    parser.add_argument(
        "--malformed",
        type=float,
        nargs="?",
        const=0.01,
        metavar="SHARE",
        help="compare reading files with this share of malformed lines (0.01), of every kind in "
        "turn, and without",
    )
    parser.add_argument(
        "--data", type=Path, metavar="FOLDER", help="keep generated files there for the next time"
    )
    return parser.parse_args()


@contextmanager
def _services(state: Path) -> Iterator[tuple[dict[str, str], str]]:
    """Run the local services; yield variables for their clients and a URI that may be written."""
    ours = {"RECSYS_ENV": "local", "RECSYS_STATE": str(state)}
    settings = Settings.from_environment(ours)
    services, _ = start_services(settings)
    environment = {
        **ours,
        "AWS_ENDPOINT_URL_S3": services.s3_url,
        "AWS_ACCESS_KEY_ID": services.access_key_id,
        "AWS_SECRET_ACCESS_KEY": services.secret_access_key,
        "AWS_DEFAULT_REGION": services.region,
        "NO_PROXY": "127.0.0.1",
        "SAGEMAKER_SUPPRESS_V2_WARNING": "1",
    }
    try:
        yield environment, f"s3://{services.bucket}/benchmark"
    finally:
        stop_services(state)


def _generated(data: Path, rows: int) -> Path:
    """Return a file of so many ratings, which is made if it is not there."""
    words = 45 if rows <= _DIGITAL_VIDEO_ROWS else 1
    path = data / f"reviews-{rows}-{words}.tsv.gz"
    if not path.exists():
        print(f"generating {rows:,} ratings", file=sys.stderr)
        draft = path.with_suffix(".draft")
        generate_amazon_reviews(draft, rows=rows, body_words=words)
        draft.rename(path)
    return path


# ------------------------------------------------------------------------------- beside pandas


def _compare(bench: Bench, source: Path, rows: int, sdk: Path | None, repeats: int) -> Figures:
    """Print what one size costs us and others; return what it costs us."""
    programs: dict[str, Callable[[], Figures]] = {
        _GUNZIP: partial(bench.reference, "gunzip", source),  # first: it brings the file to memory
        _ZCAT: partial(bench.zcat, source),
        _DUCKDB: partial(bench.reference, "duckdb", source),
        **{stage: partial(bench.ours, stage, source) for stage in _STAGES},
        _WHOLE: partial(bench.ours, "whole", source),
        _BY_DAGSTER: partial(bench.ours, "dagster", source),
    }
    if sdk is not None and rows <= _DIGITAL_VIDEO_ROWS:
        programs[_PANDAS] = partial(bench.pandas, sdk, source)
    runs: dict[str, list[Figures]] = {name: [] for name in programs}
    for number in range(repeats):
        for name, run in programs.items():
            print(f"{rows:,} ratings, {number + 1}/{repeats}: {name}", file=sys.stderr)
            runs[name].append(run())
    figures = {name: _median_of(done) for name, done in runs.items()}

    megabytes = source.stat().st_size / 1e6
    print(f"\n{rows:,} ratings, {megabytes:,.0f} MB gzip; medians of {repeats}\n")
    _print_stages(figures)
    _print_references(figures)
    return figures[_WHOLE]


def _median_of(runs: Sequence[Figures]) -> Figures:
    return Figures(
        process=_median([figures.process for figures in runs]),
        stages={name: _median([r.stages[name] for r in runs]) for name in runs[0].stages},
        ratings=runs[0].ratings,
        versions=runs[0].versions,
    )


def _median(usages: Sequence[Usage]) -> Usage:
    return Usage(
        wall=statistics.median(usage.wall for usage in usages),
        cpu=statistics.median(usage.cpu for usage in usages),
        peak_memory=int(statistics.median(usage.peak_memory for usage in usages)),
    )


def _print_stages(figures: Mapping[str, Figures]) -> None:
    """Print the table of us beside pandas."""
    whole, pandas = figures[_WHOLE], figures.get(_PANDAS)
    if pandas:
        # Pandas takes an id with a NUL byte for a good one.
        kept = f"we keep {whole.ratings:,} ratings, {pandas.versions} keep {pandas.ratings:,}"
        assert abs(pandas.ratings - whole.ratings) < whole.ratings / 1000, kept
        print(f"{kept}\n")
    _print_row(
        "stage",
        *(f"ours: {_HEADINGS[0]}", *_HEADINGS[1:]),
        *(f"pandas: {_HEADINGS[0]}", *_HEADINGS[1:]),
        *("wall, pandas ÷ ours", "CPU", "memory"),
    )
    _print_row(*["---"] * 10)
    for name in _STAGES:
        _print_beside(name, figures[name].stages[name], pandas.stages[name] if pandas else None)
    for name, without in (("all stages", ""), ("all stages but encoding", "encoding")):
        _print_beside(name, _sum_of(whole, without), _sum_of(pandas, without) if pandas else None)
    for name in (_WHOLE, _BY_DAGSTER):
        _print_beside(name, figures[name].process, pandas.process if pandas else None)


def _sum_of(figures: Figures, without: str) -> Usage:
    return _sum(*(usage for name, usage in figures.stages.items() if name != without))


def _print_beside(name: str, ours: Usage, pandas: Usage | None) -> None:
    if pandas is None:
        _print_row(name, *_cells(ours), "not run", *[""] * 5)
        return
    _print_row(name, *_cells(ours), *_cells(pandas), *_ratios(pandas, ours))


def _print_references(figures: Mapping[str, Figures]) -> None:
    """Print the table of what reading and preprocessing cost elsewhere."""
    reading = figures["reading"].stages["reading"]
    filtering = figures["filtering"].stages["filtering"]
    duckdb_stages = figures[_DUCKDB].stages
    preprocessing = _sum(reading, filtering)
    compared = (
        (_GUNZIP, figures[_GUNZIP].stages["reading"], reading),
        (_ZCAT, figures[_ZCAT].process, reading),
        (f"{_DUCKDB}: reading", duckdb_stages["reading"], reading),
        (f"{_DUCKDB}: reading, filtering", _sum(*duckdb_stages.values()), preprocessing),
    )
    print()
    _print_row("reference", *_HEADINGS, "wall, ours ÷ it", "CPU")
    _print_row(*["---"] * 6)
    for name, usage, ours in compared:
        _print_row(name, *_cells(usage), *_ratios(ours, usage)[:2])


def _sum(*usages: Usage) -> Usage:
    """Return what stages cost one after the other."""
    return Usage(
        wall=sum(usage.wall for usage in usages),
        cpu=sum(usage.cpu for usage in usages),
        peak_memory=max(usage.peak_memory for usage in usages),
    )


def _print_growth(grown: Mapping[int, Figures]) -> None:
    """Print how our whole process grows, from each size to the next."""
    print()
    _print_row("ratings", *_HEADINGS, "ratings ÷ those above", "wall", "CPU", "memory")
    _print_row(*["---"] * 8)
    before: tuple[int, Usage] | None = None
    for rows, figures in sorted(grown.items()):
        usage = figures.process
        growth = [""] * 4
        if before is not None:
            growth = [f"{rows / before[0]:.3g}", *_ratios(usage, before[1])]
        _print_row(f"{rows:,}", *_cells(usage), *growth)
        before = rows, usage


# ----------------------------------------------------------------------------- malformed lines


def _compare_malformed(bench: Bench, data: Path, rows: int, share: float, repeats: int) -> None:
    """Print what malformed lines cost the reading, and what it says when there are no others."""
    spoilt, clean, bad = (data / f"{name}-{rows}.tsv.gz" for name in ("spoilt", "clean", "bad"))
    print(f"generating {rows:,} ratings", file=sys.stderr)
    known = generate_amazon_reviews(spoilt, rows=rows, malformed_share=share)
    lines = _part(spoilt, clean, bad)
    assert lines == known.malformed_rows, f"{lines} malformed lines, not {known.malformed_rows}"

    bench.reference("gunzip", clean)  # brings the files to memory
    bench.reference("gunzip", spoilt)
    runs: dict[Path, list[Usage]] = {clean: [], spoilt: []}
    content = {}
    for _ in range(repeats):
        for source, usages in runs.items():
            usages.append(bench.ours("reading", source).stages["reading"])
            content[source] = _content(bench.scratch / "raw" / "ratings.parquet")
    _print_row("lines", "malformed", *_HEADINGS)
    _print_row(*["---"] * 5)
    without, with_them = _median(runs[clean]), _median(runs[spoilt])
    _print_row(f"{rows - lines:,}", "0", *_cells(without))
    _print_row(f"{rows:,}", f"{lines:,}", *_cells(with_them))
    wall, cpu = with_them.wall / without.wall - 1, with_them.cpu / without.cpu - 1
    print(f"\nmore time: {wall:.1%} wall, {cpu:.1%} CPU")
    if content[clean] != content[spoilt]:
        sys.exit(f"good rows differ: {content[clean]} without malformed lines, {content[spoilt]}")
    print(f"the good rows are the same {content[clean][0]:,}")
    try:
        read_ratings(bad, bench.scratch / "bad")
    except RatingsError as error:
        print(f"all malformed: {error}")


def _part(spoilt: Path, clean: Path, bad: Path) -> int:
    """Write good and bad lines to files of their own; return how many are bad."""
    lines = 0
    with (
        igzip.open(spoilt) as source,
        igzip.open(clean, "wb") as good_lines,
        igzip.open(bad, "wb") as bad_lines,
    ):
        header = next(source)
        good_lines.write(header)
        bad_lines.write(header)
        for line in source:
            is_good = _is_good(line)
            lines += not is_good
            (good_lines if is_good else bad_lines).write(line)
    return lines


def _is_good(line: bytes) -> bool:
    fields = line.split(b"\t")
    if len(fields) != 15 or fields[7] not in _STARS or not fields[1] or not fields[3]:
        return False
    if b"\0" in line:
        return False
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _content(ratings: Path) -> tuple[int, int]:
    """Return the number of rows and a hash of them, whatever their order, but for their places."""
    columns = "customer_id, video_id, title, rating, reviewed_at, review_id"
    with duckdb.connect() as db:
        sql = f"SELECT count(*), sum(hash({columns})) FROM read_parquet(?)"
        count, hashed = db.execute(sql, [str(ratings)]).fetchall()[0]
    return count, hashed


# --------------------------------------------------------------------------------- table cells


def _cells(usage: Usage) -> tuple[str, str, str]:
    return f"{usage.wall:.3g}", f"{usage.cpu:.3g}", f"{usage.peak_memory / 1e6:.0f}"


def _ratios(usage: Usage, to: Usage) -> list[str]:
    """Return ratios of wall time, CPU time and memory."""
    ratios = (usage.wall / to.wall, usage.cpu / to.cpu, usage.peak_memory / to.peak_memory)
    return [f"{ratio:.3g}" for ratio in ratios]


def _print_row(*cells: str) -> None:
    print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
