"""What runs on a Spark cluster, and is sent there as files.

What belongs here: the script that is submitted and its side of Dagster Pipes. What does not:
starting and following the job (``recsys_assets.resources.spark``) and the transformation
itself (``recsys_assets.domain.ratings.transformation``), which goes along.

EMR Serverless 7 has Python 3.9 and nothing installed: these modules use the standard library,
PySpark and each other alone.
"""
