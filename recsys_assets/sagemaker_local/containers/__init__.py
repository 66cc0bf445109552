"""A program under SageMaker's container contract: its files, its process, its HTTP server.

What belongs here is what training, processing, batch transform and hosting need alike. When a
program runs and what its end means is decided where it is started (``jobs``, ``hosting``).
"""
