"""Starts a command: python -m isft_jax train is the same as isft-train."""

from isft_jax.cli import commands

if __name__ == '__main__':
  commands.main()
