"""Greedy replies are those of transformers' generate."""

import numpy as np
import pytest
import transformers

from isft_jax.hf import pretrained
from isft_jax.inference import generate
from tests.fixtures import import_or_skip

torch = import_or_skip('torch')

NEW = 20
MODELS = {'Qwen2': {}, 'Qwen3': {'head_dim': 24}, 'Llama': {}}


@pytest.mark.parametrize('family', MODELS)
def test_greedy_is_what_transformers_generates(family, tmp_path):
  config = getattr(transformers, f'{family}Config')(
    vocab_size=96,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=512,
    tie_word_embeddings=False,
    initializer_range=0.5,  # so that replies wander
    eos_token_id=5,
    **MODELS[family],
  )
  torch.manual_seed(0)
  theirs = getattr(transformers, f'{family}ForCausalLM')(config).eval()
  theirs.save_pretrained(tmp_path)
  ours, _ = pretrained.load(tmp_path)

  dice = np.random.default_rng(0)
  prompts = [dice.integers(6, 96, n) for n in (1, 3, 9, 16, 17, 30)]
  longest = max(map(len, prompts))
  padded_BL = np.array([np.pad(p, (longest - len(p), 0)) for p in prompts])
  mask_BL = [np.arange(longest) >= longest - len(p) for p in prompts]
  with torch.no_grad():
    found_BT = theirs.generate(
      torch.asarray(padded_BL),
      attention_mask=torch.asarray(np.array(mask_BL, int)),
      do_sample=False,
      max_new_tokens=NEW,
      pad_token_id=0,
    ).numpy()[:, longest:]
  expected = []
  for reply in found_BT.tolist():
    expected.append(reply[: reply.index(5)] if 5 in reply else reply)
  assert len({tuple(reply) for reply in expected}) == len(prompts)
  assert len({token for reply in expected for token in reply}) > 20

  replies = generate.greedy(*ours, prompts, NEW, stop_ids=[5])
  assert [reply.tolist() for reply in replies] == expected
