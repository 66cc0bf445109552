"""The landing: the prefix where ratings arrive, looked at and read.

What belongs here: S3 and SQS, as far as they tell what has landed. What does not: when to look and
what to do about it (``recsys_assets.automation.new_ratings``, ``recsys_assets.assets.ratings``).
"""

from recsys_assets.resources.landing.ledgers import read_ledger
from recsys_assets.resources.landing.looking import Look
from recsys_assets.resources.landing.objects import LandedObject
from recsys_assets.resources.landing.resource import Landing

__all__ = ["LandedObject", "Landing", "Look", "read_ledger"]
