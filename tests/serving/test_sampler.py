"""Sampled ids: all that the model sampled, up to the end of its turn."""

import numpy as np
import pytest

from isft_jax.inference import generate
from isft_jax.inference.sampling import GREEDY, Sampling
from isft_jax.serving import sampler
from isft_jax.serving.sampler import Completion, Interrupted, Settings

USER = [{'role': 'user', 'content': 'Tell me about gold.'}]


def hide(index, text):
  return False


@pytest.fixture(scope='module')
def greedy(served_model):
  """Sixteen greedy tokens after a prompt, without any stop."""
  prompt = served_model.prompt(USER)
  (ids_T,) = generate.greedy(*served_model.model, [prompt.ids_T], 16)
  assert len({*ids_T.tolist()}) >= 6
  return prompt, ids_T.tolist()


def settings(new=16, stop_texts=(), sampling=GREEDY):
  return Settings(new, sampling, 0, stop_texts)


def test_the_sampled_stop_token_is_kept(served_model, greedy, monkeypatch):
  prompt, ids = greedy
  stop = next(i for i in range(5, 16) if ids[i] not in ids[:i])
  monkeypatch.setattr(served_model, 'stop_ids', [ids[stop]])
  (completion,) = sampler.sample(served_model, prompt, 1, settings(), hide)
  text = served_model.decode_reply(prompt, np.array(ids[:stop]))
  tail = served_model.tokenizer.decode([ids[stop]])
  place = served_model.place
  assert completion == Completion(text, ids[: stop + 1], tail, 'stop', place)


def test_a_long_reply_has_all_its_tokens(served_model, greedy):
  prompt, ids = greedy
  for new in (1, 5, 16):
    (completion,) = sampler.sample(served_model, prompt, 1, settings(new), hide)
    text = served_model.decode_reply(prompt, np.array(ids[:new]))
    assert completion[:4] == (text, ids[:new], '', 'length')


def test_tokens_end_with_the_one_that_completes_a_stop_text(
  served_model, greedy
):
  prompt, ids = greedy
  texts = [
    served_model.decode_reply(prompt, np.array(ids[:n], np.int32))
    for n in range(17)
  ]
  # The text of one token in the middle, which occurs in no text before.
  number = next(
    n
    for n in range(6, 16)
    if texts[n].startswith(texts[n - 1])
    and (new := texts[n][len(texts[n - 1]) :])
    and '\ufffd' not in new
    and new not in texts[n - 1]
  )
  stop = texts[number][len(texts[number - 1]) :]
  (completion,) = sampler.sample(
    served_model, prompt, 1, settings(stop_texts=[stop]), hide
  )
  assert completion[:4] == (texts[number - 1], ids[:number], stop, 'stop')


def test_choices_have_their_own_keys(served_model, greedy):
  prompt, _ = greedy
  hot = settings(8, sampling=Sampling(1.0))
  three = sampler.sample(served_model, prompt, 3, hot, hide)
  assert len({tuple(each.ids) for each in three}) == 3
  assert sampler.sample(served_model, prompt, 1, hot, hide) == three[:1]


def test_whoever_is_shown_a_reply_may_end_it(served_model, greedy):
  shown = []

  def show(index, text):
    shown.append(text)
    return len(shown) == 2

  with pytest.raises(Interrupted):
    sampler.sample(served_model, greedy[0], 1, settings(), show)
  assert len(shown) == 2 and shown[1].startswith(shown[0])
