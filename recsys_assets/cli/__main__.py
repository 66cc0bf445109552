"""Run the program as ``python -m recsys_assets.cli``."""

from recsys_assets.cli import main

main()
