"""The model artefact against MXNet 1.9.1 itself, the library that the built-in is made with.

What belongs here: what MXNet makes of our artefacts, and we of its. What does not: tests of the
artefact alone (``recsys_assets_tests.domain.factorization_machine.test_artefact``).

MXNet needs a numpy of before version 1.24, so it lives in an environment of its own and is reached
as a program.
"""
