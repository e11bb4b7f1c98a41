"""Reasons for which a row is rejected."""

# Reason -> explanation, in the order of reports.
REASONS = {
  'malformed': 'the row does not follow its format',
  'template_raises': 'the chat template refuses the conversation',
  'content_dropped': 'the template leaves out text of a message',
  'unknown_origin': 'the author of some character is unknown',
  'unknown_characters': 'the tokenizer has no token for some characters',
  'special_text': 'a message holds the text of a special token',
  'too_long': (
    'more tokens than --max_length, with --overlong=reject, or more than '
    '16,777,216 characters'
  ),
  'no_targets': 'all tokens are context or protocol',
}


class Rejected(ValueError):
  """Raised for a trajectory that must not be trained on.

  Attributes:
    reason: a key of `REASONS`.
  """

  def __init__(self, reason: str, message: str) -> None:
    super().__init__(message)
    self.reason = reason
