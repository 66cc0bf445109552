"""Run by the interpreter of the PySpark environment: filters ratings as the script does.

What belongs here: calling the script's function, for many cases in one session. What does not:
which cases, and what is expected of them. The first argument is a JSON file of cases (``ratings``,
``scratch``, ``rules``), the second the file to write what was reported of each.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path

from pyspark.sql import SparkSession

from recsys_assets.domain.ratings.transformation import FilterRules, NothingLeftError
from recsys_assets.spark.filter_ratings import filter_ratings

cases, reports = Path(sys.argv[1]), []
spark = SparkSession.builder.getOrCreate()
for case in json.loads(cases.read_text()):
    try:
        rules = FilterRules(**case["rules"])
        report = filter_ratings(spark, case["ratings"], case["scratch"], rules)
    except NothingLeftError as error:
        reports.append(str(error))
    else:
        reports.append(asdict(report))
Path(sys.argv[2]).write_text(json.dumps(reports))
