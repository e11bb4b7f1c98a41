"""Images, videos and audio make a row malformed, under any of their names."""

import pytest

from isft_jax.data.formats import registry
from isft_jax.data.messages import media
from isft_jax.data.messages.author_rules import Rules
from isft_jax.data.messages.conversation import Malformed

MESSAGES = [{'role': 'user', 'content': '<image>What is this?'}]


@pytest.mark.parametrize(
  ('key', 'value', 'is_media'),
  [
    ('images', ['a.jpg'], True),
    ('images', 'a.jpg', True),
    ('images', [{'bytes': 'iVBORw', 'path': None}], True),
    ('images', [], False),
    ('images', None, False),
    ('images', '', False),
    ('images', [None], False),
    ('images', [{'bytes': None, 'path': None}], False),
    ('image', 'data:image/png;base64,iVBORw', True),
    ('image', 'https://a.example/b', True),
    ('image', 'b/a.PNG', True),
    ('image', {'bytes': 'iVBORw'}, True),
    # The container that the agent worked in.
    ('image', 'ubuntu:22.04', False),
    ('image', False, False),
    ('videos', ['a.mp4'], True),
    ('audio', {'path': 'a.wav'}, True),
    ('audios', ['a.wav'], True),
    ('image_url', 'https://a.example/b', True),
    ('audio_path', 'a.wav', True),
    ('pixel_values', [[0.1]], True),
    ('imagination', ['a.jpg'], False),
  ],
)
@pytest.mark.parametrize('messages', ['messages', 'conversations', 'history'])
def test_a_column_of_a_row(key, value, is_media, messages):
  row = {messages: MESSAGES, key: value}
  if not is_media:
    assert registry.read(row, 'x', 'auto', Rules.default())
    return
  with pytest.raises(Malformed) as raised:
    registry.read(row, 'x', 'auto', Rules.default())
  assert str(raised.value) == (
    f'the row has {key}, which has no text: only text can become tokens'
  )


@pytest.mark.parametrize(
  ('value', 'is_empty'),
  [
    (None, True),
    ('', True),
    ([], True),
    ({}, True),
    ([None, ['']], True),
    ({'a': {'b': []}}, True),
    (0, False),
    (False, False),
    ('a', False),
    ([0], False),
  ],
)
def test_what_is_empty(value, is_empty):
  assert media.is_empty(value) == is_empty
