"""The asset graph for other orchestrators: an Airflow DAG, an AWS Step Functions state machine.

What belongs here: reading any Dagster definitions into plain tasks (``reading.py``, ``graph.py``),
and writing these down for an orchestrator (``airflow``, ``step_functions``). What does not: any
asset's name. What has to be known of an asset beyond Dagster's own facts stands in its metadata
(``metadata.py``).
"""
