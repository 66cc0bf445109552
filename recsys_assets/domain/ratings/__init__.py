"""Ratings: reading what has landed, keeping what is worth keeping, measuring what is there."""
