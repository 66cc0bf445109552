"""How the parameters of a factorization machine are found.

What belongs here: a module for each way, with a function ``train`` of the same signature, and what
they share (``common``). What does not: choosing among them (``estimator``), and files and logs
(``container``).

Their loops are compiled by numba, once: what is compiled is kept in ``__pycache__`` beside the
modules; where that cannot be written, in numba's folder of the user's cache; or in NUMBA_CACHE_DIR,
if it is set. It holds for processors of one kind: on another the loops are compiled again.
"""
