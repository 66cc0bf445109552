"""How a tuning job searches: where, what it tries next and which tries it gives up early.

Nothing here is remembered from one call to the next. What comes out depends on the tuning job's
ranges and seed and on the records of its training jobs alone, so that a new endpoint goes on as
the last one would have.
"""
