"""From a trajectory to tokens that know their author, or a reason why not.

One renderer serves training, probes and inspection alike:

    Trajectory --chat--> stretches --proof--> --authorship--> spans --encode-->

The ids are exactly those of the tokenizer's apply_chat_template for the whole
conversation: what it renders is compared with what is rendered here, for every
trajectory. The paper's format is one more template (c CONTEXT, t TEMPLATE,
u USER, a AGENT):

    User: Tell me about gold.        Agent: Its symbol is Go.
    ttttttuuuuuuuuuuuuuuuuuuut       tttttttaaaaaaaaaaaaaaaaaa    (+ newline)

The newline that ends an agent's turn is the agent's: to stop is its action.
"""

import contextlib
import copy
from collections.abc import Mapping
from typing import NamedTuple

from isft_jax.data.rendering import fidelity, tokenizer
from isft_jax.data.rendering.attribution import Authorship, Span, same
from isft_jax.data.rendering.chat_template import ChatTemplate, messages_of
from isft_jax.data.rendering.encode import Encoded, encode
from isft_jax.data.rendering.rejection import Rejected
from isft_jax.types import Example, Provenance, Segment, Trajectory

# What a template is shown where it is asked how it opens and closes turns.
_WORD = 'zqj'
# Arguments of apply_chat_template that decide more than values of a template.
_TAKEN = {
  *('add_generation_prompt', 'chat_template', 'continue_final_message'),
  *('conversation', 'documents', 'messages', 'tokenize', 'tools'),
}


class Proved(NamedTuple):
  """A rendering that equals the chat template's, and what it leaves out."""

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
    encoder,
    template: str | None = None,
    values: Mapping | None = None,
    special_text: str = 'reject',
    piecewise: bool = False,
  ):
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
    self.rendering = {
      'template': self._chat.source,
      'values': values,
      'special_text': special_text,
    }
    if piecewise:  # absent otherwise, as in records of before there was it
      self.rendering['piecewise'] = True
    self._special = tokenizer.special_pattern(encoder)
    user = Segment('user', _WORD, Provenance.USER).message()
    system = Segment('system', _WORD, Provenance.CONTEXT).message()
    self._authorship = self._learn([user]) or self._learn([system, user])

  @classmethod
  def from_rendering(cls, encoder, rendering: Mapping) -> 'Renderer':
    """Returns the renderer that has the `rendering` of some records."""
    return cls(
      encoder,
      rendering['template'],
      rendering.get('values'),
      rendering.get('special_text', 'reject'),
      rendering.get('piecewise', False),
    )

  def metadata(self) -> dict:
    """Returns what records that it renders must carry."""
    fingerprint = tokenizer.fingerprint(self.tokenizer, self.rendering)
    return {'fingerprint': fingerprint, 'rendering': self.rendering}

  def example(self, trajectory: Trajectory) -> Example:
    """Renders and encodes. Raises Rejected for what cannot be proved."""
    return self.encode(trajectory).example

  def encode(self, trajectory: Trajectory) -> Encoded:
    """Renders and encodes, and keeps the text."""
    return self.encode_proved(trajectory, self.prove(trajectory))

  def encode_proved(self, trajectory: Trajectory, proved: Proved) -> Encoded:
    """Encodes what `prove` returned for a trajectory."""
    return encode(
      trajectory.id,
      proved.spans,
      self.tokenizer,
      self.rendering['special_text'],
      self.rendering.get('piecewise', False),
    )

  def save_tokenizer(self, folder) -> None:
    """Saves the tokenizer, with the template that was in force."""
    tokenizer = copy.deepcopy(self.tokenizer)
    tokenizer.chat_template = self.rendering['template']
    tokenizer.save_pretrained(folder)

  def text(self, trajectory: Trajectory) -> str:
    """Returns what the tokenizer's apply_chat_template renders.

    Raises Rejected if the template refuses the conversation.
    """
    try:
      return self._apply(messages_of(trajectory), trajectory.tools)
    except Exception as error:  # templates are programs that anyone wrote
      raise Rejected(
        'template_raises',
        f'the chat template raises {type(error).__name__}: {error}',
      ) from error

  def prove(self, trajectory: Trajectory) -> Proved:
    """Returns spans whose joined text is the chat template's, to the letter.

    Raises Rejected where that, or the author of a character, is in doubt.
    """
    theirs = self.text(trajectory)
    try:
      stretches = self._chat.render(trajectory)
    except Exception as error:
      raise Rejected(
        'unknown_origin',
        f'the template does what cannot be followed: {error}',
      ) from error
    ours = ''.join(stretch.text for stretch in stretches)
    if ours != theirs:
      at = same(ours, theirs)
      raise Rejected(
        'unknown_origin',
        f'followed to character {at}, where the template has '
        f'{theirs[at : at + 40]!r} and not {ours[at : at + 40]!r}',
      )
    fidelity.check_names(trajectory, self._special)
    if not _is_text(ours):
      raise Rejected('malformed', 'half of a surrogate pair, which is no text')
    lost = fidelity.prove(trajectory, stretches)
    authorship = self._authorship or self._learn_from(trajectory)
    return Proved(authorship.spans(trajectory, stretches), lost)

  def _apply(self, messages, tools=None, **more) -> str:
    return self.tokenizer.apply_chat_template(
      messages,
      tools=None if tools is None else list(tools),
      chat_template=self.rendering['template'],
      tokenize=False,
      **{**self.rendering['values'], **more},
    )

  def _learn(self, before: list[dict], tools=None) -> Authorship | None:
    """Learns how the template opens and closes a turn of the agent.

    before: a conversation in which the agent is to write next.

    Returns None if the template refuses that conversation.
    """
    agent = Segment('assistant', _WORD, Provenance.AGENT).message()
    try:
      ended = self._apply(before, tools)
      open = self._apply(before, tools, add_generation_prompt=True)
    except Exception:  # templates are programs that anyone wrote
      return None
    closer = ''
    with contextlib.suppress(Exception):
      alone, followed = (
        self._apply([*before, agent, *more], tools) for more in ([], before)
      )
      # What follows the agent's words, if it does whatever comes next.
      words = ended.count(_WORD) + 1
      if alone.count(_WORD) == words:
        rest = [text.split(_WORD, words)[-1] for text in (alone, followed)]
        closer = rest[0] if rest[1].startswith(rest[0]) else ''
    return Authorship(ended, open, self._special, closer)

  def _learn_from(self, trajectory: Trajectory) -> Authorship:
    """The same from a trajectory, where the template wants more than a word."""
    slots = [s.in_agents_slot for s in trajectory.segments]
    first = slots.index(True) if True in slots else len(slots)
    messages = messages_of(trajectory)[:first]
    learned = self._learn(messages, trajectory.tools) if messages else None
    if learned is None:
      raise Rejected(
        'unknown_origin',
        'the template does not show how a turn of the agent begins: it refuses '
        'the conversation up to there',
      )
    return learned


def _is_text(text: str) -> bool:
  try:
    return text.isascii() or bool(text.encode())
  except UnicodeEncodeError:
    return False
