"""Filtering ratings on Spark: what is sent to AWS, and what real Spark makes of it."""
