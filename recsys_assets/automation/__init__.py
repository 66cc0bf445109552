"""The platform at work by itself: what starts runs, what limits them, and who is told.

What belongs here: sensors, schedules, automation conditions, freshness, notifications, retention
and the run launcher, and their configuration. What does not: what a run does
(``recsys_assets.assets``) and talking to S3, SQS or SNS (``recsys_assets.resources``).
"""
