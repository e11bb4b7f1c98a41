"""Remembers conversations, so that the next request continues exact tokens.

A client sends the text of the whole conversation each time. It is matched by
its messages against the conversations that this server has answered:

    request                  known up to        transcript
    u1                       -                  A: u1 a1
    u1 a1 u2                 a1 of A            A: u1 a1 u2 a2
    u1 a1 u3                 a1 of A            B: (u1 a1) u3 a3
    u1 x u2                  -                  C: u1 (x) u2 a4

Each token has its author in one transcript only. In all others it is context,
shown in parentheses, which no objective scores. So a conversation that is
continued after its file was published, or in two ways, is learned once.
"""

import collections
import dataclasses
import hashlib
import json
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from isft_jax.data.messages.annotations import PROVENANCES
from isft_jax.serving.prompts import Known, Tokens
from isft_jax.serving.sampler import Completion
from isft_jax.serving.transcripts import Transcripts
from isft_jax.types import Provenance

# What is remembered: conversations, and their tokens (about 250 MB).
_MOST = 1000
_MOST_TOKENS = 1 << 22


class End(NamedTuple):
  """Where a reply ends in its conversation.

  Attributes:
    messages: number of messages, the reply included.
    tokens: number of tokens, all that was sampled for the reply included.
    tail: text that was sampled after the reply; see `sampler.Completion`.
  """

  messages: int
  tokens: int
  tail: str


@dataclasses.dataclass(eq=False)
class Conversation:
  """A conversation with its transcript.

  Attributes:
    id: name of its transcript.
    continues: name of the transcript in which it begins, or None.
    messages: all messages, the replies included.
    tokens: all tokens, with the authors of the transcript.
    ends: where each reply of this server ends, by the digest of all messages
      up to it.
    used: time of the last request or reply, in seconds.
    is_published: whether its transcript may not be changed any more.
  """

  id: str
  continues: str | None
  messages: list[dict[str, str]]
  tokens: Tokens
  ends: dict[str, End]
  used: float
  is_published: bool = False


class Match(NamedTuple):
  """A conversation that a request continues after one of its replies."""

  conversation: Conversation
  end: End

  @property
  def known(self) -> Known:
    """The tokens up to the reply."""
    tokens = self.conversation.tokens.first(self.end.tokens)
    return Known(self.end.messages, tokens, self.end.tail)


class Conversations:
  """The conversations of one server."""

  def __init__(
    self,
    transcripts: Transcripts | None,
    about: Mapping[str, Any],
    idle_seconds: float,
    clock: Callable[[], float] = time.monotonic,
  ) -> None:
    """Reads the newest transcripts of earlier servers.

    Args:
      transcripts: where conversations are written; None: nowhere.
      about: fields for all transcripts. Transcripts with another `tokenizer`
        are not continued.
      idle_seconds: time without a request after which a conversation is
        complete.
      clock: returns the time in seconds.
    """
    self._transcripts = transcripts
    self._about = about
    self._idle_seconds = idle_seconds
    self._clock = clock
    # The conversation that was used last is the last.
    self._all: collections.OrderedDict[str, Conversation] = (
      collections.OrderedDict()
    )
    self._by_digest: dict[str, list[Conversation]] = {}
    for conversation in reversed(self._read()):
      self._remember(conversation)

  def match(self, messages: Sequence[Mapping[str, str]]) -> Match | None:
    """Returns the conversation that has the most of the messages, if any."""
    for number in range(len(messages) - 1, 0, -1):
      if messages[number - 1]['role'] != 'assistant':
        continue
      digest = _digest(messages[:number])
      # If several have the same text: one that ends there and is still open.
      candidates = sorted(
        self._by_digest.get(digest, ()),
        key=lambda c, n=number: (not c.is_published, len(c.messages) == n),
      )
      if candidates:
        conversation = candidates[-1]
        conversation.used = self._clock()
        return Match(conversation, conversation.ends[digest])
    return None

  def add(
    self,
    match: Match | None,
    messages: Sequence[Mapping[str, str]],
    prompt: Tokens,
    completions: Sequence[Completion],
  ) -> None:
    """Adds the replies to a request, each of which may be continued.

    Args:
      match: what `match` returned for the messages.
      messages: messages of the request.
      prompt: its tokens.
      completions: the replies.
    """
    for index, completion in enumerate(completions):
      reply = {
        'role': 'assistant',
        'content': completion.text,
        'finish_reason': completion.finish_reason,
        'tail': completion.tail,
        'parameters': completion.parameters,
      }
      number = len(completion.ids)
      sampled = Tokens(
        completion.ids,
        [Provenance.AGENT] * number,
        [len(messages)] * number,
      )
      # The first of several replies continues the conversation, if it still
      # ends where it did. Each other one is a branch.
      if match and not index and _is_at_end(match):
        conversation = match.conversation
        old, known = conversation.messages, match.end.messages
        conversation.tokens += prompt.after(match.end.tokens) + sampled
        conversation.messages = [*old, *map(dict, messages[known:]), reply]
      else:
        conversation = self._branch(match, prompt, is_choice=index > 0)
        conversation.tokens += sampled
        conversation.messages = [*map(dict, messages), reply]
      conversation.ends[_digest(conversation.messages)] = End(
        len(conversation.messages),
        len(conversation.tokens.ids),
        completion.tail,
      )
      conversation.used = self._clock()
      self._remember(conversation)
      if self._transcripts:
        self._transcripts.write(
          conversation.id,
          conversation.tokens,
          {
            **self._about,
            'continues': conversation.continues,
            'messages': conversation.messages,
          },
        )

  def publish_idle(self) -> None:
    """Publishes conversations that were idle for the set time."""
    now = self._clock()
    for conversation in self._all.values():
      if now - conversation.used >= self._idle_seconds:
        self._publish(conversation)

  def publish_all(self) -> None:
    """Publishes all conversations, at the end of the server."""
    for conversation in self._all.values():
      self._publish(conversation)

  def _read(self) -> list[Conversation]:
    """Returns conversations of earlier servers, the newest first."""
    conversations: list[Conversation] = []
    size = 0
    for row in self._transcripts.newest() if self._transcripts else ():
      conversation = _from_row(row, self._about, self._clock())
      if conversation:
        size += len(conversation.tokens.ids)
        if size > _MOST_TOKENS or len(conversations) == _MOST:
          break
        conversations.append(conversation)
    return conversations

  def _branch(
    self, match: Match | None, prompt: Tokens, is_choice: bool
  ) -> Conversation:
    """Returns a new conversation, which begins with a prompt."""
    # The beginning is context, if another transcript has its authors.
    size = match.end.tokens if match else 0
    if is_choice:
      size = len(prompt.ids)
    now = time.strftime('%Y%m%d-%H%M%S', time.gmtime())
    return Conversation(
      id=f'{now}-{uuid.uuid4().hex[:8]}',
      continues=match.conversation.id if match else None,
      messages=[],
      tokens=prompt.first(size).as_context() + prompt.after(size),
      ends={},
      used=self._clock(),
    )

  def _remember(self, conversation: Conversation) -> None:
    self._all[conversation.id] = conversation
    self._all.move_to_end(conversation.id)
    for digest in conversation.ends:
      same = self._by_digest.setdefault(digest, [])
      if conversation not in same:
        same.append(conversation)
    # The memory is bounded.
    size = sum(len(each.tokens.ids) for each in self._all.values())
    while len(self._all) > 1 and (
      len(self._all) > _MOST or size > _MOST_TOKENS
    ):
      _, oldest = self._all.popitem(last=False)
      size -= len(oldest.tokens.ids)
      self._publish(oldest)
      for digest in oldest.ends:
        self._by_digest[digest].remove(oldest)
        if not self._by_digest[digest]:
          del self._by_digest[digest]

  def _publish(self, conversation: Conversation) -> None:
    if not conversation.is_published and self._transcripts:
      self._transcripts.publish(conversation.id)
    conversation.is_published = True


def _is_at_end(match: Match) -> bool:
  """Returns whether a conversation can be continued in its own transcript."""
  conversation = match.conversation
  is_last = len(conversation.messages) == match.end.messages
  return is_last and not conversation.is_published


def _digest(messages: Sequence[Mapping[str, str]]) -> str:
  """Returns a digest of messages, without what clients change in replies."""
  # Many clients strip a reply before they send it back.
  fields = [
    (m['role'], m['content'].strip())
    if m['role'] == 'assistant'
    else (m['role'], m['content'], m.get('name'), m.get('tool_call_id'))
    for m in messages
  ]
  return hashlib.sha256(json.dumps(fields).encode()).hexdigest()


def _from_row(
  row: Mapping[str, Any], about: Mapping[str, Any], now: float
) -> Conversation | None:
  """Returns the conversation of a published transcript, or None."""
  try:
    transcript = row['transcript']
    if transcript['tokenizer'] != about['tokenizer']:
      return None
    tokens = Tokens(
      row['tokens'],
      [PROVENANCES[name.upper()] for name in row['provenance']],
      row['segment'],
    )
    messages = transcript['messages']
    # The file does not say where earlier replies end.
    end = End(len(messages), len(tokens.ids), messages[-1]['tail'])
    return Conversation(
      id=row['id'],
      continues=transcript['continues'],
      messages=messages,
      tokens=tokens,
      ends={_digest(messages): end},
      used=now,
      is_published=True,
    )
  except (KeyError, TypeError, AttributeError, IndexError):
    return None  # a file of someone else
