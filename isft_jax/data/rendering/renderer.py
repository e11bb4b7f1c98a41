"""Renders a trajectory as tokens with authors, or rejects it with a reason.

One renderer serves training, probes and inspection alike:

    Trajectory --chat_template--> stretches --fidelity--> --attribution-->
      spans --encode--> Example

The ids are exactly those of the tokenizer's apply_chat_template for the whole
conversation: what it renders is compared with what is rendered here, for every
trajectory. The paper's format is one more template (c CONTEXT, t TEMPLATE,
u USER, a AGENT):

    User: Tell me about gold.        Agent: Its symbol is Go.
    ttttttuuuuuuuuuuuuuuuuuuut       tttttttaaaaaaaaaaaaaaaaaa    (+ newline)

The newline that ends an agent's turn is the agent's: to stop is its action.
"""

import copy
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from isft_jax.data.rendering import fidelity, tokenizer
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

# Arguments of apply_chat_template that decide more than values of a template.
_TAKEN = {
  *('add_generation_prompt', 'chat_template', 'continue_final_message'),
  *('conversation', 'documents', 'messages', 'tokenize', 'tools'),
}


class Rendered(NamedTuple):
  """A trajectory whose text equals the chat template's rendering.

  starts_T: the character at which each token starts.
  straddling: tokens that hold characters of two authors or more.
  spans: the text by author, in order.
  lost: what the template leaves out; see `fidelity.count_losses`.
  """

  example: Example
  text: str
  starts_T: np.ndarray
  straddling: int
  spans: list[Span]
  lost: dict[str, int]


class Renderer:
  """Renders trajectories with a tokenizer and its chat template.

  rendering: all that decides, with the tokenizer, how a trajectory becomes
    ids: the template, what it is given beside messages, `special_text`, and
    `piecewise` if it is set.
  """

  def __init__(
    self,
    encoder: tokenizer.FastTokenizer,
    template: str | None = None,
    values: Mapping[str, Any] | None = None,
    special_text: str = 'reject',
    piecewise: bool = False,
  ) -> None:
    """Compiles a template; by default the tokenizer's own.

    encoder: a transformers fast tokenizer.
    special_text, piecewise: see `encode`.

    Raises ValueError if there is no template, or if it is not one.
    """
    template = template or encoder.chat_template
    if not isinstance(template, str):
      raise ValueError(
        'the tokenizer has no chat template, or several; name a file with '
        '--chat_template'
      )
    self.tokenizer = encoder
    values = dict(values or {})
    taken = sorted(_TAKEN & values.keys())
    if taken:
      raise ValueError(
        f'{taken[0]!r} is not for --template_kwargs: it is set for each '
        'trajectory'
      )
    self._chat = ChatTemplate(template, encoder.special_tokens_map | values)
    self.rendering: dict[str, Any] = {
      'template': self._chat.source,
      'values': values,
      'special_text': special_text,
    }
    if piecewise:  # absent otherwise, as in records of before there was it
      self.rendering['piecewise'] = True
    self._special = tokenizer.special_pattern(encoder)
    user = Segment('user', WORD, Provenance.USER).message()
    system = Segment('system', WORD, Provenance.CONTEXT).message()
    learned = (
      TemplateProfile.learn(self._apply, before, self._special)
      for before in ([user], [system, user])
    )
    self._profile = next(filter(None, learned), None)

  @classmethod
  def from_rendering(
    cls, encoder: tokenizer.FastTokenizer, rendering: Mapping[str, Any]
  ) -> 'Renderer':
    """Returns the renderer that has the `rendering` of some records."""
    return cls(
      encoder,
      rendering['template'],
      rendering.get('values'),
      rendering.get('special_text', 'reject'),
      rendering.get('piecewise', False),
    )

  def metadata(self) -> dict[str, Any]:
    """Returns what records that it renders must carry."""
    fingerprint = tokenizer.fingerprint(self.tokenizer, self.rendering)
    return {'fingerprint': fingerprint, 'rendering': self.rendering}

  def render(self, trajectory: Trajectory) -> Rendered:
    """Renders a trajectory, encodes it and tells the author of each token.

    Raises:
      Rejected: the template refuses the conversation or leaves out what
        someone wrote, or the author of a character is in doubt.
    """
    messages = messages_of(trajectory)
    text = self._rendered(messages, trajectory)
    stretches = self._tracked(messages, trajectory, text)
    fidelity.check_names(trajectory, self._special)
    if not _is_text(text):
      raise Rejected('malformed', 'half of a surrogate pair, which is no text')
    lost = fidelity.count_losses(trajectory, messages, stretches)
    profile = self._profile or self._profile_from(messages, trajectory)
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
    """Returns the example of `render`: what a record holds."""
    return self.render(trajectory).example

  def save_tokenizer(self, folder: str | os.PathLike) -> None:
    """Saves the tokenizer, with the template that was in force."""
    tokenizer = copy.deepcopy(self.tokenizer)
    tokenizer.chat_template = self.rendering['template']
    tokenizer.save_pretrained(folder)

  def _rendered(self, messages: list[dict], trajectory: Trajectory) -> str:
    """Returns what the tokenizer's apply_chat_template renders."""
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
    """Returns the same text in stretches of known origin."""
    try:
      stretches = self._chat.render(trajectory, messages)
    except Exception as error:
      raise Rejected(
        'unknown_origin',
        f'the template does what cannot be followed: {error}',
      ) from error
    followed = ''.join(stretch.text for stretch in stretches)
    if followed != text:
      at = common_prefix(followed, text)
      raise Rejected(
        'unknown_origin',
        f'followed to character {at}, where the template has '
        f'{text[at : at + 40]!r} and not {followed[at : at + 40]!r}',
      )
    return stretches

  def _apply(
    self,
    messages: list[dict],
    tools: Sequence[Mapping] | None = None,
    **more: bool,
  ) -> str:
    text = self.tokenizer.apply_chat_template(
      messages,
      tools=None if tools is None else [dict(tool) for tool in tools],
      chat_template=self.rendering['template'],
      tokenize=False,
      **{**self.rendering['values'], **more},
    )
    assert isinstance(text, str)  # and not ids
    return text

  def _profile_from(
    self, messages: list[dict], trajectory: Trajectory
  ) -> TemplateProfile:
    """Learns from a trajectory, if the template refuses shorter ones."""
    slots = [s.in_agents_slot for s in trajectory.segments]
    first = slots.index(True) if True in slots else len(slots)
    before = messages[:first]
    profile = None
    if before:
      profile = TemplateProfile.learn(
        self._apply, before, self._special, trajectory.tools
      )
    if profile is None:
      raise Rejected(
        'unknown_origin',
        'the template does not show how a turn of the agent begins: it refuses '
        'the conversation up to there',
      )
    return profile


def _is_text(text: str) -> bool:
  try:
    return text.isascii() or bool(text.encode())
  except UnicodeEncodeError:
    return False
