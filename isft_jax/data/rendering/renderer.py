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
import dataclasses
import functools
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jinja2
import numpy as np

from isft_jax.data.rendering import fidelity, tool_schemas
from isft_jax.data.rendering import tokenizer as tokenizer_lib
from isft_jax.data.rendering.attribution import Attribution, Span
from isft_jax.data.rendering.call_forms import (
  with_call_ids,
  with_text_arguments,
)
from isft_jax.data.rendering.chat_template import (
  ChatTemplate,
  Stretch,
  messages_of,
)
from isft_jax.data.rendering.encode import encode
from isft_jax.data.rendering.limits import OverLimitError
from isft_jax.data.rendering.rejection import Rejected
from isft_jax.data.rendering.template_profile import (
  WORD,
  TemplateProfile,
  common_prefix,
)
from isft_jax.types import Example, Provenance, Segment, Trajectory

# Arguments of apply_chat_template that the renderer sets itself. The user may
# not set them with --template_kwargs.
_RESERVED = {
  *('add_generation_prompt', 'chat_template', 'continue_final_message'),
  *('conversation', 'documents', 'messages', 'tokenize', 'tools'),
}


# Renderers that are kept for values of trajectories.
_MOST_VARIANTS = 16


class Rendered(NamedTuple):
  """A rendered trajectory that has passed all checks."""

  example: Example
  text: str  # equals the chat template's rendering
  starts_T: np.ndarray  # the character at which each token starts
  straddling: int  # number of tokens with characters of several authors
  spans: list[Span]  # the text split by author, in order
  lost: dict[str, int]  # text left out; see `fidelity.count_losses`


class _Template(NamedTuple):
  """A compiled chat template."""

  source: str
  chat: ChatTemplate
  # Learned from the shortest conversation that it accepts. None if it refuses
  # them; each trajectory then teaches its own profile.
  attribution: Attribution | None


class Renderer:
  """Renders trajectories with a tokenizer and its chat template."""

  def __init__(
    self,
    tokenizer: tokenizer_lib.FastTokenizer,
    template: str | Mapping[str, str] | None = None,
    values: Mapping[str, Any] | None = None,
    special_text: str = 'reject',
    piecewise: bool = False,
    call_id_digits: int = 0,
  ) -> None:
    """Compiles a chat template.

    Args:
      tokenizer: a transformers fast tokenizer.
      template: the text of the template, or several texts by name; the
        tokenizer's own by default. As in transformers, 'tool_use' renders
        trajectories with tools, and 'default' the others.
      values: extra values for the template, by name.
      special_text: see `encode`.
      piecewise: see `encode`.
      call_id_digits: number of digits to which the ids of tool calls are
        renumbered; Mistral's templates demand 9. 0 keeps the ids.

    Raises:
      ValueError: the template is missing or does not compile, or `values` sets
        a reserved argument.
    """
    # A given template replaces that of the tokenizer.
    template = template or tokenizer.chat_template
    sources = {'default': template} if isinstance(template, str) else template
    if not sources or not {'default', 'tool_use'} & sources.keys():
      raise ValueError(
        'the tokenizer has no chat template; name a file with --chat_template'
        if not sources
        else f'the tokenizer has the chat templates {", ".join(sources)}; '
        'choose one with --chat_template=NAME'
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
    self._values = values
    self._special = tokenizer_lib.special_pattern(tokenizer)
    # The two templates between which transformers chooses.
    try:
      self._templates = {
        name: self._compile(source)
        for name, source in sources.items()
        if name in ('default', 'tool_use')
      }
    except ValueError as error:
      # Only a template of the tokenizer's folder is in a file of this name.
      is_own = template is tokenizer.chat_template and tokenizer.name_or_path
      where = f'{tokenizer.name_or_path}: ' if is_own else ''
      raise ValueError(f'{where}{error}') from error
    # Every setting that affects the ids, besides the tokenizer. Records store
    # it in their metadata.
    frozen = {name: t.source for name, t in self._templates.items()}
    self.rendering: dict[str, Any] = {
      'template': frozen['default'] if isinstance(template, str) else frozen,
      'values': values,
      'special_text': special_text,
    }
    # Newer keys are left out if they have their default: records that are older
    # keep their fingerprint.
    if piecewise:
      self.rendering['piecewise'] = True
    if call_id_digits:
      self.rendering['call_id_digits'] = call_id_digits
    # Renderers with values of trajectories, by the JSON of all values.
    self._variants: dict[str, Renderer] = {}

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
      rendering.get('call_id_digits', 0),
    )

  def metadata(self) -> dict[str, Any]:
    """Returns the metadata for records that this renderer makes."""
    fingerprint = tokenizer_lib.fingerprint(self.tokenizer, self.rendering)
    return {'fingerprint': fingerprint, 'rendering': self.rendering}

  def render(self, trajectory: Trajectory, may_drop: bool = False) -> Rendered:
    """Renders and encodes a trajectory, and finds the author of each token.

    Args:
      trajectory: the conversation.
      may_drop: whether the template may leave out the whole content of a
        message.

    Returns:
      The example, with its text, spans and losses.

    Raises:
      Rejected: the template refuses the conversation or leaves out something
        that was written, or the author of a character is in doubt.
    """
    # A row with its own template values needs another renderer.
    if trajectory.template_values:
      return self._render_with_values(trajectory, may_drop)
    trajectory = self._with_envelopes(trajectory)
    messages = messages_of(trajectory)
    digits = self.rendering.get('call_id_digits', 0)
    if digits:
      messages = with_call_ids(messages, digits)
    try:
      return self._render(trajectory, messages, may_drop)
    except Rejected as error:
      # Some templates want the arguments of tool calls as text.
      texts = with_text_arguments(messages) if _may_want_text(error) else None
      if texts is None:
        raise
      try:
        return self._render(trajectory, texts, may_drop)
      except Rejected:
        raise error from None

  def render_turns(self, trajectory: Trajectory) -> list[Rendered]:
    """Renders the conversation up to each turn of the agent.

    A template may leave out something of an earlier turn, such as its thinking.
    At inference, the agent then saw that turn whole while it wrote it, and
    without that part later. Each turn of the agent is the end of one example:

        u a u a      example 0   u a
                     example 1   . . u a      . context only

    Args:
      trajectory: the conversation.

    Returns:
      One example per turn of the agent, and one for turns after the last. Each
      token is scored in one example.

    Raises:
      Rejected: as `render` does.
    """
    segments = trajectory.segments
    ends = [i for i, s in enumerate(segments, 1) if s.in_agents_slot]
    if not ends or ends[-1] < len(segments):
      ends.append(len(segments))
    pieces, before = [], -1  # index of the agent's last turn
    for window, end in enumerate(ends):
      piece = self.render(
        dataclasses.replace(trajectory, segments=segments[:end]), may_drop=True
      )
      example = piece.example
      # All up to the stop of the agent's last turn is context.
      own_T = (example.segment_T == before) & (
        example.provenance_T != Provenance.TEMPLATE
      )
      # A turn without text ends with the text before it.
      old_T = own_T if own_T.any() else example.segment_T <= before
      start = int(np.flatnonzero(old_T)[-1]) + 1 if old_T.any() else 0
      example = dataclasses.replace(example, scored_from=start, window=window)
      pieces.append(piece._replace(example=example))
      before = end - 1
    return pieces

  def example(self, trajectory: Trajectory) -> Example:
    """Returns only the example of `render`, the content of a record."""
    return self.render(trajectory).example

  def save_tokenizer(self, folder: str | os.PathLike) -> None:
    """Saves the tokenizer to a folder, with the template that is in use."""
    # A copy: the renderer's own tokenizer stays as it was loaded.
    tokenizer = copy.deepcopy(self.tokenizer)
    tokenizer.chat_template = self.rendering['template']
    tokenizer.save_pretrained(folder)

  def _compile(self, source: str) -> _Template:
    # Special tokens are variables of a template, such as bos_token.
    variables = self.tokenizer.special_tokens_map | self._values
    chat = ChatTemplate(source, variables)
    try:
      chat.check_limits([{'role': 'user', 'content': WORD}])
    except OverLimitError as error:
      raise ValueError(
        f'the chat template {error} for a single message; name another one '
        'with --chat_template'
      ) from error
    # Learn how the template opens and closes a turn from the shortest
    # conversation that it accepts. Some templates demand a system message.
    user = Segment('user', WORD, Provenance.USER)
    system = Segment('system', WORD, Provenance.CONTEXT)
    learned = (
      TemplateProfile.learn(
        functools.partial(self._apply_limited, chat),
        chat.render,
        before,
        self._special,
      )
      for before in ([user], [system, user])
    )
    profile = next(filter(None, learned), None)
    attribution = Attribution(profile, self._special) if profile else None
    return _Template(chat.source, chat, attribution)

  def _template_for(self, tools: Sequence[Mapping] | None) -> _Template:
    """Returns the template that transformers would use."""
    name = 'default' if tools is None else 'tool_use'
    if name not in self._templates:
      name = next(iter(self._templates.keys() - {name}), name)
    return self._templates[name]

  def _render(
    self, trajectory: Trajectory, messages: list[dict], may_drop: bool
  ) -> Rendered:
    """Renders a trajectory with the given form of its messages."""
    template = self._template_for(trajectory.tools)
    # The text with origins, whose work is limited, then the reference text.
    tracked = self._tracked(template, messages, trajectory)
    text = self._rendered(template, messages, trajectory)
    stretches = self._compared(tracked, text)

    # Checks that need only the text.
    fidelity.check_names(trajectory, self._special)
    # JSON can express half of a surrogate pair; UTF-8 and tokenizers cannot.
    if not _is_text(text):
      raise Rejected(
        'malformed', 'the text has half of a surrogate pair, which has no UTF-8'
      )
    attribution = template.attribution or self._learn_from(template, trajectory)
    stretches = attribution.adopt(trajectory, stretches)
    lost = fidelity.count_losses(trajectory, messages, stretches, may_drop)

    # Authors of characters, then of tokens.
    spans = attribution.spans(trajectory, stretches)
    encoded = encode(
      trajectory.id,
      spans,
      self.tokenizer,
      self.rendering['special_text'],
      self.rendering.get('piecewise', False),
    )
    return Rendered(*encoded, spans, lost)

  def _render_with_values(
    self, trajectory: Trajectory, may_drop: bool
  ) -> Rendered:
    """Renders a trajectory that has its own values for the template."""
    values = {**self.rendering['values'], **trajectory.template_values}
    key = json.dumps(values, sort_keys=True, ensure_ascii=False)
    # Values are literals of the template, which may hold special tokens.
    match = self._special.search(key)
    if match:
      raise Rejected(
        'special_text',
        f"a value of the row's chat_template_kwargs holds the text of the "
        f'special token {match[0]!r}',
      )
    if key not in self._variants:
      # Few data sets have more than two combinations of values.
      if len(self._variants) == _MOST_VARIANTS:
        self._variants.clear()
      # Compiled once per combination of values, and kept.
      try:
        self._variants[key] = Renderer.from_rendering(
          self.tokenizer, {**self.rendering, 'values': values}
        )
      except ValueError as error:
        raise Rejected('malformed', f'chat_template_kwargs: {error}') from error
    plain = dataclasses.replace(trajectory, template_values={})
    return self._variants[key].render(plain, may_drop)

  def _with_envelopes(self, trajectory: Trajectory) -> Trajectory:
    """Returns a trajectory whose schemas of tools the template can show."""
    tools = trajectory.tools or ()
    if not any(map(tool_schemas.is_bare, tools)) or not self._needs_envelope:
      return trajectory
    wrapped = tuple(tool_schemas.with_envelope(dict(tool)) for tool in tools)
    return dataclasses.replace(trajectory, tools=wrapped)

  @functools.cached_property
  def _needs_envelope(self) -> bool:
    template = self._template_for(())  # the one for trajectories with tools
    return tool_schemas.needs_envelope(
      functools.partial(self._apply_limited, template.chat)
    )

  def _rendered(
    self, template: _Template, messages: list[dict], trajectory: Trajectory
  ) -> str:
    """Returns the text that apply_chat_template renders."""
    try:
      return self._apply(template.source, messages, trajectory.tools)
    except Exception as error:  # templates are programs that anyone wrote
      raise Rejected(
        'template_raises',
        f'the chat template raises {type(error).__name__}: {error}',
      ) from error

  def _tracked(
    self, template: _Template, messages: list[dict], trajectory: Trajectory
  ) -> Sequence[Stretch] | Exception:
    """Returns the text as stretches of one origin, or the template's error."""
    try:
      try:
        return template.chat.render(trajectory, messages)
      except OverLimitError:
        raise
      except Exception as error:
        # Without origins, the template may run to its end.
        template.chat.check_limits(messages, trajectory.tools)
        return error
    except OverLimitError as error:
      raise Rejected(
        'template_raises', f'the chat template {error} and is stopped'
      ) from error

  def _compared(
    self, stretches: Sequence[Stretch] | Exception, text: str
  ) -> Sequence[Stretch]:
    """Returns stretches that have the text; rejects any difference."""
    if isinstance(stretches, Exception):
      raise Rejected(
        'unknown_origin',
        'the template uses an operation that loses the origin of its text: '
        f'{stretches}',
      ) from stretches
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
    source: str,
    messages: list[dict],
    tools: Sequence[Mapping] | None = None,
    **more: bool,
  ) -> str:
    # The call that users of transformers make, so that training sees the same
    # text.
    text = self.tokenizer.apply_chat_template(
      messages,
      tools=None if tools is None else [dict(tool) for tool in tools],
      chat_template=source,
      tokenize=False,
      **{**self._values, **more},
    )
    assert isinstance(text, str)  # tokenize=False returns no ids
    return text

  def _apply_limited(
    self,
    chat: ChatTemplate,
    messages: list[dict],
    tools: Sequence[Mapping] | None = None,
    **more: bool,
  ) -> str:
    """Does the same for a conversation that was not rendered before."""
    chat.check_limits(messages, tools, more)
    return self._apply(chat.source, messages, tools, **more)

  def _learn_from(
    self, template: _Template, trajectory: Trajectory
  ) -> Attribution:
    """Learns the template's profile from the trajectory's own first turns."""
    # Turns before the agent's first turn: the shortest beginning that shows a
    # generation prompt.
    slots = [s.in_agents_slot for s in trajectory.segments]
    before = trajectory.segments[: slots.index(True) if True in slots else None]
    profile = None
    # Learn the header of an agent's turn from renderings of that beginning.
    if before:
      profile = TemplateProfile.learn(
        functools.partial(self._apply_limited, template.chat),
        template.chat.render,
        before,
        self._special,
        trajectory.tools,
      )
    if profile is None:
      raise Rejected(
        'unknown_origin',
        "the start of the agent's turn is unknown: the template refuses the "
        'conversation up to that turn',
      )
    return Attribution(profile, self._special)


def _may_want_text(error: Rejected) -> bool:
  """Returns whether a rejection may be due to arguments that are no text."""
  if error.reason == 'content_dropped':
    return 'in the call of' in str(error)
  # A template raises a TemplateError with a message of its own.
  by_itself = type(error.__cause__) is jinja2.TemplateError
  is_other = by_itself and 'argument' not in str(error).lower()
  return error.reason == 'template_raises' and not is_other


def _is_text(text: str) -> bool:
  """Returns whether a text has a UTF-8 encoding."""
  try:
    return text.isascii() or bool(text.encode())
  except UnicodeEncodeError:
    return False
