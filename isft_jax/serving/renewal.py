"""Loads a model again when another run has taken its place."""

import os
from collections.abc import Callable

from isft_jax.inference.chat_model import ChatModel


class Renewal:
  """Watches where a model is, as `isft-train --follow` moves it."""

  def __init__(
    self,
    place: Callable[[], str],
    load: Callable[[], ChatModel],
    note: Callable[[str], None],
  ) -> None:
    """Notes the place; to be called before the model is first loaded.

    Args:
      place: returns the folder that the model is loaded from now.
      load: loads it.
      note: prints a line.
    """
    self._place, self._load, self._note = place, load, note
    self._loaded, self._failed = place(), ''

  def __call__(self) -> ChatModel | None:
    """Returns the model of another place, or None if it has not moved.

    A model that cannot be loaded is tried again by the next call, and said
    once.
    """
    try:
      place = self._place()
      if place == self._loaded:
        return None
      model = self._load()
    except (OSError, ValueError) as error:
      if str(error) != self._failed:
        self._failed = str(error)
        self._note(f'warning: {error}; the model stays as it was')
      return None
    self._loaded, self._failed = place, ''
    self._note(f'replies come from {os.path.dirname(place)} from now on')
    return model
