"""Tests of the framework-free code."""
