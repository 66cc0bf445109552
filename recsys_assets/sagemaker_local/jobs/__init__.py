"""The work: jobs run as programs under SageMaker's container contract, queued and followed.

What a client may ask for is decided in ``api``; here it is done, and its course written to the
store.
"""
