"""Tests of the Dagster UI: runs launched through it, and what its pages show."""
