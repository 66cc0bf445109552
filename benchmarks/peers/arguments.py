"""What command lines of benchmarks have in common.

What belongs here: reading a value. What does not: which options a program has.
"""

import argparse


def positive(text: str) -> int:
    """Return a whole number from 1 on, as a type of argparse's."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a positive whole number, got {text!r}")
    return int(text)
