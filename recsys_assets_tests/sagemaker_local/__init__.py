"""Tests of the local SageMaker endpoint, driven by unmodified clients."""
