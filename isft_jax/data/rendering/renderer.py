"""Renders a trajectory as tokens with authors, or rejects it with a reason.

Training, probes and inspection use the same renderer:

    Trajectory --chat_template--> stretches --fidelity--> --attribution-->
      spans --encode--> Example

The ids equal those of the tokenizer's apply_chat_template for the whole
conversation. Every trajectory is rendered both ways and compared. The paper's
format is a chat template like any other (c CONTEXT, t TEMPLATE, u USER,
a AGENT):

    User: Tell me about gold.        Agent: Its symbol is Go.
    ttttttuuuuuuuuuuuuuuuuuuut       tttttttaaaaaaaaaaaaaaaaaa    (+ newline)

The newline that ends an agent's turn belongs to the agent, because stopping is
one of its actions.
"""

import copy
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from isft_jax.data.rendering import fidelity
from isft_jax.data.rendering import tokenizer as tokenizer_lib
from isft_jax.data.rendering.attribution import (
  WORD,
  Span,
  TemplateProfile,
  common_prefix,
)
from isft_jax.data.rendering.chat_template import (
  ChatTemplate,
  Stretch,
  messages_of,
)
from isft_jax.data.rendering.encode import encode
from isft_jax.data.rendering.rejection import Rejected
from isft_jax.types import Example, Provenance, Segment, Trajectory

# Arguments of apply_chat_template that the renderer sets itself. The user may
# not set them with --template_kwargs.
_RESERVED = {
  *('add_generation_prompt', 'chat_template', 'continue_final_message'),
  *('conversation', 'documents', 'messages', 'tokenize', 'tools'),
}


class Rendered(NamedTuple):
  """A rendered trajectory that has passed all checks."""

  example: Example
  text: str  # equals the chat template's rendering
  starts_T: np.ndarray  # the character at which each token starts
  straddling: int  # number of tokens with characters of several authors
  spans: list[Span]  # the text split by author, in order
  lost: dict[str, int]  # text left out; see `fidelity.count_losses`


class Renderer:
  """Renders trajectories with a tokenizer and its chat template."""

  def __init__(
    self,
    tokenizer: tokenizer_lib.FastTokenizer,
    template: str | None = None,
    values: Mapping[str, Any] | None = None,
    special_text: str = 'reject',
    piecewise: bool = False,
  ) -> None:
    """Compiles a chat template.

    Args:
      tokenizer: a transformers fast tokenizer.
      template: the text of the template; the tokenizer's own by default.
      values: extra values for the template, by name.
      special_text: see `encode`.
      piecewise: see `encode`.

    Raises:
      ValueError: the template is missing or does not compile, or `values` sets
        a reserved argument.
    """
    # A given template replaces that of the tokenizer.
    template = template or tokenizer.chat_template
    if not isinstance(template, str):
      raise ValueError(
        'the tokenizer has no chat template, or several; name a file with '
        '--chat_template'
      )
    # Values of the template that the user sets, such as enable_thinking.
    self.tokenizer = tokenizer
    values = dict(values or {})
    reserved = sorted(_RESERVED & values.keys())
    if reserved:
      raise ValueError(
        f'--template_kwargs must not set {reserved[0]!r}: the renderer sets it '
        'for each trajectory'
      )
    # Special tokens are variables of a template, such as bos_token.
    self._chat = ChatTemplate(template, tokenizer.special_tokens_map | values)
    # Every setting that affects the ids, besides the tokenizer. Records store
    # it in their metadata.
    self.rendering: dict[str, Any] = {
      'template': self._chat.source,
      'values': values,
      'special_text': special_text,
    }
    # The key is left out if False: records that are older than this setting
    # keep their fingerprint.
    if piecewise:
      self.rendering['piecewise'] = True
    self._special = tokenizer_lib.special_pattern(tokenizer)

    # Learn how the template opens and closes a turn from the shortest
    # conversation that it accepts. Some templates demand a system message.
    user = Segment('user', WORD, Provenance.USER)
    system = Segment('system', WORD, Provenance.CONTEXT)
    learned = (
      TemplateProfile.learn(
        self._apply, self._chat.render, before, self._special
      )
      for before in ([user], [system, user])
    )
    # None if the template refuses both; each trajectory then teaches its own
    # profile.
    self._profile = next(filter(None, learned), None)

  @classmethod
  def from_rendering(
    cls, tokenizer: tokenizer_lib.FastTokenizer, rendering: Mapping[str, Any]
  ) -> 'Renderer':
    """Returns a renderer with the `rendering` stored in records' metadata.

    Args:
      tokenizer: the tokenizer that made the records.
      rendering: the settings, as `metadata` returned them.
    """
    return cls(
      tokenizer,
      rendering['template'],
      # Records of older versions lack these entries, and had these values.
      rendering.get('values'),
      rendering.get('special_text', 'reject'),
      rendering.get('piecewise', False),
    )

  def metadata(self) -> dict[str, Any]:
    """Returns the metadata for records that this renderer makes."""
    fingerprint = tokenizer_lib.fingerprint(self.tokenizer, self.rendering)
    return {'fingerprint': fingerprint, 'rendering': self.rendering}

  def render(self, trajectory: Trajectory) -> Rendered:
    """Renders and encodes a trajectory, and finds the author of each token.

    Args:
      trajectory: the conversation.

    Returns:
      The example, with its text, spans and losses.

    Raises:
      Rejected: the template refuses the conversation or leaves out something
        that was written, or the author of a character is in doubt.
    """
    messages = messages_of(trajectory)
    # The reference text, then the same text with origins.
    text = self._rendered(messages, trajectory)
    stretches = self._tracked(messages, trajectory, text)

    # Checks that need only the text.
    fidelity.check_names(trajectory, self._special)
    # JSON can express half of a surrogate pair; UTF-8 and tokenizers cannot.
    if not _is_text(text):
      raise Rejected(
        'malformed', 'the text has half of a surrogate pair, which has no UTF-8'
      )
    lost = fidelity.count_losses(trajectory, messages, stretches)

    # Authors of characters, then of tokens.
    profile = self._profile or self._profile_from(trajectory)
    spans = profile.spans(trajectory, stretches)
    encoded = encode(
      trajectory.id,
      spans,
      self.tokenizer,
      self.rendering['special_text'],
      self.rendering.get('piecewise', False),
    )
    return Rendered(*encoded, spans, lost)

  def example(self, trajectory: Trajectory) -> Example:
    """Returns only the example of `render`, the content of a record."""
    return self.render(trajectory).example

  def save_tokenizer(self, folder: str | os.PathLike) -> None:
    """Saves the tokenizer to a folder, with the template that is in use."""
    # A copy: the renderer's own tokenizer stays as it was loaded.
    tokenizer = copy.deepcopy(self.tokenizer)
    tokenizer.chat_template = self.rendering['template']
    tokenizer.save_pretrained(folder)

  def _rendered(self, messages: list[dict], trajectory: Trajectory) -> str:
    """Returns the text that apply_chat_template renders."""
    try:
      return self._apply(messages, trajectory.tools)
    except Exception as error:  # templates are programs that anyone wrote
      raise Rejected(
        'template_raises',
        f'the chat template raises {type(error).__name__}: {error}',
      ) from error

  def _tracked(
    self, messages: list[dict], trajectory: Trajectory, text: str
  ) -> list[Stretch]:
    """Returns `text` as stretches of one origin; rejects any difference."""
    try:
      stretches = self._chat.render(trajectory, messages)
    except Exception as error:
      raise Rejected(
        'unknown_origin',
        'the template uses an operation that loses the origin of its text: '
        f'{error}',
      ) from error
    tracked = ''.join(stretch.text for stretch in stretches)
    if tracked != text:
      start = common_prefix(tracked, text)
      raise Rejected(
        'unknown_origin',
        f'origins are known up to character {start}; there transformers '
        f'renders {text[start : start + 40]!r}, and tracking renders '
        f'{tracked[start : start + 40]!r}',
      )
    return stretches

  def _apply(
    self,
    messages: list[dict],
    tools: Sequence[Mapping] | None = None,
    **more: bool,
  ) -> str:
    # The call that users of transformers make, so that training sees the same
    # text.
    text = self.tokenizer.apply_chat_template(
      messages,
      tools=None if tools is None else [dict(tool) for tool in tools],
      chat_template=self.rendering['template'],
      tokenize=False,
      **{**self.rendering['values'], **more},
    )
    assert isinstance(text, str)  # tokenize=False returns no ids
    return text

  def _profile_from(self, trajectory: Trajectory) -> TemplateProfile:
    """Learns the profile from the trajectory's own first turns."""
    # Turns before the agent's first turn: the shortest beginning that shows a
    # generation prompt.
    slots = [s.in_agents_slot for s in trajectory.segments]
    before = trajectory.segments[: slots.index(True) if True in slots else None]
    profile = None
    if before:
      profile = TemplateProfile.learn(
        self._apply, self._chat.render, before, self._special, trajectory.tools
      )
    if profile is None:
      raise Rejected(
        'unknown_origin',
        "the start of the agent's turn is unknown: the template refuses the "
        'conversation up to that turn',
      )
    return profile


def _is_text(text: str) -> bool:
  """Returns whether a text has a UTF-8 encoding."""
  try:
    return text.isascii() or bool(text.encode())
  except UnicodeEncodeError:
    return False
