"""The page of a training run, and of several runs side by side."""
