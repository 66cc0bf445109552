"""The examples, run for real on the local services."""
