"""Tests of the factorization machine."""
