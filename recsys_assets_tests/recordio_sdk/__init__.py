"""The RecordIO codec against the SageMaker Python SDK 2, the reference that it must agree with.

What belongs here: the SDK's own bytes, what makes them, and tests of our codec against them. What
does not: tests of the codec alone (``recsys_assets_tests.domain.test_recordio``).

The SDK cannot be installed beside version 3, which the project uses, so it lives in an environment
of its own and is reached as a program.
"""
