"""Everything the platform knows about ratings and models, free of frameworks.

What belongs here: plain functions and values over paths, arrays and Parquet files, which can be
used and tested alone. What does not: Dagster, AWS clients, MLflow, or any knowledge of where
things are stored or who runs them.
"""
