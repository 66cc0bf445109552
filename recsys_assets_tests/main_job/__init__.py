"""The main job from end to end: the command, what its runs leave behind, and what they must not."""
