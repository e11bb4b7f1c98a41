"""Encodes conversations as prompts whose tokens have authors.

A new conversation is rendered with the chat template. A conversation that
continues an answered one begins with the exact tokens of that one, and only the
text after its last reply is rendered:

    tokens of call n                           new in call n + 1
    prompt, sampled reply with its stop        \\n<|im_start|>user\\nAnd ...

So no reply is decoded and encoded again, which may give other tokens.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from isft_jax.data.rendering.attribution import Span
from isft_jax.data.rendering.chat_template import ChatTemplate, messages_of
from isft_jax.data.rendering.encode import encode
from isft_jax.data.rendering.rejection import Rejected
from isft_jax.data.rendering.renderer import Renderer
from isft_jax.data.rendering.template_names import template_names
from isft_jax.data.rendering.template_profile import common_prefix
from isft_jax.inference.chat_model import ChatModel, Prompt
from isft_jax.serving.request import ApiError
from isft_jax.types import Provenance, Segment, Trajectory

# Text of known replies in a rendering.
_WORD = 'zqj'
# Authors of messages. The model did not write an assistant's message that is
# rendered as text: nobody is to learn from it.
_AUTHORS = {
  'system': Provenance.CONTEXT,
  'developer': Provenance.CONTEXT,
  'user': Provenance.USER,
  'tool': Provenance.TOOL,
  'assistant': Provenance.CONTEXT,
}


class Tokens(NamedTuple):
  """Tokens with authors.

  Attributes:
    ids: the tokens.
    authors: author of each token.
    turns: index of the message of each token.
  """

  ids: list[int]
  authors: list[Provenance]
  turns: list[int]

  def __add__(self, other: 'Tokens') -> 'Tokens':  # type: ignore[override]
    """Joins the columns, and not the tuples."""
    return Tokens(
      self.ids + other.ids,
      self.authors + other.authors,
      self.turns + other.turns,
    )

  def first(self, number: int) -> 'Tokens':
    """Returns the first tokens."""
    return Tokens(self.ids[:number], self.authors[:number], self.turns[:number])

  def after(self, number: int) -> 'Tokens':
    """Returns the tokens after the first ones."""
    return Tokens(self.ids[number:], self.authors[number:], self.turns[number:])

  def as_context(self) -> 'Tokens':
    """Returns the same tokens, which nobody is to learn from."""
    return self._replace(authors=[Provenance.CONTEXT] * len(self.ids))


class Known(NamedTuple):
  """The beginning of a conversation, up to a reply of this server.

  Attributes:
    messages: number of messages, the reply included.
    tokens: their tokens, with all that was sampled for the reply.
    tail: text that was sampled after the reply; see `sampler.Completion`.
  """

  messages: int
  tokens: Tokens
  tail: str


class PromptEncoder:
  """Renders and encodes prompts for one model."""

  def __init__(self, chat_model: ChatModel) -> None:
    """Compiles the chat template.

    Raises:
      ValueError: the model has no template.
    """
    if not chat_model.template:
      raise ValueError(
        '--serve needs a chat template, and the tokenizer has none; name '
        'another one with --tokenizer'
      )
    self._chat_model = chat_model
    self._tokenizer = chat_model.tokenizer
    variables = {**self._tokenizer.special_tokens_map, **chat_model.values}
    self._chat = ChatTemplate(chat_model.template, variables)
    self._renderer = Renderer(
      self._tokenizer, chat_model.template, chat_model.values
    )
    self.template_names = template_names(chat_model.template)
    self.fingerprint: str = self._renderer.metadata()['fingerprint']

  def encode(
    self, messages: Sequence[Mapping[str, str]], known: Known | None = None
  ) -> tuple[Prompt, Tokens]:
    """Encodes a conversation and the header of the reply.

    Args:
      messages: messages of a request.
      known: the beginning of the conversation, if this server has answered it.

    Returns:
      The prompt, and its tokens with authors: `known.tokens` and the new ones.

    Raises:
      ApiError: the template refuses the conversation or leaves out some of it,
        or a message holds the text of a special token.
    """
    try:
      if known is None:
        before, new = Tokens([], [], []), self._spans(messages)
        tokens, space = self._tokens(new)
      else:
        before = known.tokens
        tokens, space = self._tokens_after(messages, known)
    except Rejected as error:
      # A flag of isft-prepare is no help here.
      words = str(error).removesuffix('; see --special_text')
      raise ApiError(words, 'messages', error.reason) from error
    tokens = before + tokens
    return Prompt(np.array(tokens.ids, np.int32), space), tokens

  def _spans(self, messages: Sequence[Mapping[str, str]]) -> list[Span]:
    """Returns the text of a prompt by author."""
    segments = tuple(
      Segment(
        role := message['role'],
        message['content'],
        _AUTHORS[role],
        fields={
          k: v for k, v in message.items() if k not in ('role', 'content')
        },
      )
      for message in messages
    )
    trajectory = Trajectory('request', segments)
    spans = self._renderer.render(trajectory).spans
    # The header of the reply comes after the conversation.
    more = {'add_generation_prompt': True}
    try:
      text = self._chat.render_messages(messages_of(trajectory), more=more)
    except Exception as error:  # a template is a program: it raises anything
      raise Rejected(
        'template_raises', f'the chat template raises {error}'
      ) from error
    # A template may close the last turn otherwise if a reply follows.
    rendered = ''.join(span.text for span in spans)
    size = common_prefix(rendered, text)
    spans, rest = _split(spans, size)
    if any(span.written for span in rest):
      raise Rejected(
        'unknown_origin',
        'the chat template renders the messages in another way if a reply '
        'follows, so that the authors of its text are unknown',
      )
    header = Span(text[size:], Provenance.TEMPLATE, len(messages))
    return [*spans, header] if header.text else spans

  def _tokens(self, spans: list[Span]) -> tuple[Tokens, str]:
    """Encodes a prompt's text, but not the spaces at its end."""
    # In training, they were part of the token of the first word.
    text = ''.join(span.text for span in spans)
    kept = text.rstrip(' ')
    spans, _ = _split(spans, len(kept))
    example = encode('request', spans, self._tokenizer).example
    tokens = Tokens(
      example.tokens_T.tolist(),
      [*map(Provenance, example.provenance_T.tolist())],
      example.segment_T.tolist(),
    )
    return tokens, text[len(kept) :]

  def _tokens_after(
    self, messages: Sequence[Mapping[str, str]], known: Known
  ) -> tuple[Tokens, str]:
    """Encodes what follows the tokens of a known conversation."""
    # The text of known replies does not matter, because their tokens are there.
    # The last one is a word that occurs nowhere else.
    word = _WORD * 2
    texts = [self._chat.source, *(m['content'] for m in messages)]
    while any(word in text for text in texts):
      word += _WORD
    filled = [
      {**m, 'content': _WORD} if m['role'] == 'assistant' else m
      for m in messages[: known.messages]
    ]
    filled[-1] = {**filled[-1], 'content': word}
    spans = self._spans([*filled, *messages[known.messages :]])
    text = ''.join(span.text for span in spans)
    if text.count(word) != 1:
      raise Rejected(
        'content_dropped', 'the template leaves out the last reply'
      )
    _, spans = _split(spans, text.index(word) + len(word))
    # The agent did not sample the end of its turn that the template adds.
    spans = [
      span._replace(provenance=Provenance.TEMPLATE)
      if span.segment < known.messages
      else span
      for span in spans
    ]
    after = ''.join(span.text for span in spans)
    size = self._overlap(after, known)
    stop = known.tail
    if stop and after[:size].endswith(stop) and self._stopped(known):
      # The stop token is encoded again, and its id dropped, because the text
      # after it may have other tokens at the beginning of a text.
      start = Span(stop, Provenance.TEMPLATE, known.messages - 1)
      tokens, space = self._tokens([start, *_split(spans, size)[1]])
      if tokens.ids[:1] == known.tokens.ids[-1:]:
        return tokens.after(1), space
    return self._tokens(_split(spans, size)[1])

  def _overlap(self, after: str, known: Known) -> int:
    """Returns how many characters of a text the reply has sampled already."""
    tail = known.tail
    if after.startswith(tail):
      return len(tail)
    if self._stopped(known):
      # Some templates write a space before the stop token.
      space = len(after) - len(after.lstrip())
      return space + len(tail) if after.startswith(tail, space) else 0
    return common_prefix(after, tail)

  def _stopped(self, known: Known) -> bool:
    return known.tokens.ids[-1] in self._chat_model.stop_ids


def _split(spans: Sequence[Span], size: int) -> tuple[list[Span], list[Span]]:
  """Splits spans after a number of characters of their text."""
  before, after = [], []
  for span in spans:
    first, rest = span.text[:size], span.text[size:]
    size = max(0, size - len(span.text))
    before += [span._replace(text=first)] if first else []
    after += [span._replace(text=rest)] if rest else []
  return before, after
