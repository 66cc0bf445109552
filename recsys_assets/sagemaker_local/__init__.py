"""A local SageMaker endpoint: one process that unmodified AWS clients drive by its URL.

It answers the SageMaker, SageMaker Runtime, CloudWatch Logs, IAM and STS calls that training,
tuning, batch transform and hosting need, and does the work: programs run under SageMaker's
container contract, artefacts and outputs go to an S3-compatible store. It knows nothing of the
platform around it and imports nothing but its own modules; what an image does is a program named
in a table (``images``).

Start it with ``python -m recsys_assets.sagemaker_local --port PORT --state FOLDER``.
"""
