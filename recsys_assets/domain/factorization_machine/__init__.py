"""A factorization machine that behaves as Amazon SageMaker's built-in one.

What belongs here: the model, its training, its artefact and its request formats as plain functions
of arrays and paths, and in ``container`` the two programs that put them behind SageMaker's
container contract. What does not: anything that knows of customers, videos, S3 or jobs.

Import the modules, not this package: each imports only what it needs, so that a program that
scores does not wait for the compiler that trains.
"""
