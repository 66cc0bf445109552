"""The assets: what the platform makes, named by nouns, in the order of their dependence.

What belongs here: what each asset is, what it depends on, its config and its metadata. What does
not: how things are computed (``recsys_assets.domain``), remote jobs (``recsys_assets.resources``)
and storage (``recsys_assets.io_managers``).
"""
