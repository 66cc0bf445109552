"""Batch transform: S3 objects, cut into payloads, through a model's server and back to S3.

``job`` has the record and the run, ``objects`` the way of one object; the other modules know
formats only, and nothing of jobs.
"""
