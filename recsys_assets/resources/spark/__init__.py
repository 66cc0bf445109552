"""Spark: where ratings outgrow one machine, and what runs there.

What belongs here: everything between an asset that wants ratings filtered and EMR Serverless, Glue
or a Spark of this machine. What does not: what is run there (``recsys_assets.spark``), and the same
in this process (``recsys_assets.domain.ratings.filtering``).
"""

from recsys_assets.resources.spark.resource import Spark, configured_spark

__all__ = ["Spark", "configured_spark"]
