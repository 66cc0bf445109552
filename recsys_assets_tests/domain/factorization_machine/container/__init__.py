"""Tests of the container programs, run as SageMaker runs them: as processes."""
