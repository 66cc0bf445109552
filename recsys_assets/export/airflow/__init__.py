"""The asset graph as an Airflow DAG of the Amazon provider's operators.

What belongs here, in three layers: which operator a task becomes and with which arguments
(``operators.py``), what waits for what (``edges.py``), and the shape of the file that instantiates
them (``dag.py.jinja``, filled in by ``dag.py``). What does not: any asset's name, and Dagster.
"""

from recsys_assets.export.airflow.dag import export_airflow
from recsys_assets.export.airflow.options import AirflowOptions, ProcessingOptions

__all__ = ["AirflowOptions", "ProcessingOptions", "export_airflow"]
