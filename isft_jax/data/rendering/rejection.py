"""Why a row is set aside: one of a few reasons, and a sentence."""

REASONS = {
  'malformed': 'the row is not what its format says',
  'template_raises': 'the chat template refuses the conversation',
  'content_dropped': 'the template leaves out what someone wrote',
  'unknown_origin': 'who wrote some character cannot be told',
  'special_text': 'a message holds the text of a special token',
  'too_long': 'more tokens than --max_length, with --overlong=reject',
  'no_targets': 'there is no token but context and protocol',
}


class Rejected(ValueError):
  """A trajectory that must not be trained on. `reason` is in `REASONS`."""

  def __init__(self, reason: str, message: str) -> None:
    super().__init__(message)
    self.reason = reason
