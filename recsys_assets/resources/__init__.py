"""Dagster resources: clients and the remote things they own.

What belongs here: access to AWS or its local stand-ins, the object store, SageMaker jobs, MLflow
runs. What does not: formats and object layout (``recsys_assets.io_managers``) and what is computed
(``recsys_assets.assets``, ``recsys_assets.domain``).
"""
