"""A recommender platform as Dagster assets, from ratings in S3 to recommendations."""
