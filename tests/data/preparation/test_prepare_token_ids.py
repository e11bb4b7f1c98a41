"""Given token ids, all the way to records: not one of them changes."""

import json

import pytest

from isft_jax.data.messages.author_rules import Rules
from isft_jax.data.preparation import prepare
from isft_jax.data.records import dataset
from isft_jax.data.rendering.renderer import Renderer
from isft_jax.types import Provenance
from tests.data.chat_tokenizer import template, trained
from tests.data.formats.log_rows import (
  ATIF_TOKENS,
  MINI_SWE_AGENT,
  ROLLOUT_IDS,
  TINKER,
  VERIFIERS,
)


def prepared(folder, *rows):
  (folder / 'runs.jsonl').write_text('\n'.join(map(json.dumps, rows)))
  report, _ = prepare.prepare(
    prepare.Settings(str(folder / 'runs.jsonl')),
    Renderer(trained(), template('chatml')),
    Rules.default(),
    str(folder / 'out'),
  )
  return report


@pytest.mark.parametrize(
  ('row', 'tokens', 'authors'),
  [
    (ATIF_TOKENS, [1, 2, 3, 4, 5, 6, 7, 8], 'CCCAATTA'),
    (ROLLOUT_IDS, [1, 2, 3, 4, 5, 6, 7, 8], 'UUUAATTA'),
    (TINKER, [1, 2, 3, 4], 'CCAA'),
    (VERIFIERS, [1, 2, 3, 4, 5, 6, 7], 'UUUtAtT'),
  ],
)
def test_ids_and_authors_of_a_record(row, tokens, authors, tmp_path):
  report = prepared(tmp_path, row)
  assert report['rows'] == {'read': 1, 'written': 1, 'rejected': 0}
  [record] = dataset.Records(str(tmp_path / 'out'))
  assert record.tokens_T.tolist() == tokens
  letters = {
    Provenance.AGENT: 'A',
    Provenance.CONTEXT: 'C',
    Provenance.TEMPLATE: 't',
    Provenance.TOOL: 'T',
    Provenance.USER: 'U',
  }
  assert ''.join(letters[a] for a in record.provenance_T.tolist()) == authors


def test_an_id_that_the_tokenizer_does_not_have(tmp_path):
  row = {'prompt_ids': [1, 2], 'completion_ids': [10**6]}
  report = prepared(tmp_path, row, TINKER)
  assert report['rejected'] == {'malformed': 1}
  [record] = dataset.Records(str(tmp_path / 'out'))
  assert record.tokens_T.tolist() == [1, 2, 3, 4]


def test_what_the_agent_never_saw_is_reported(tmp_path):
  report = prepared(tmp_path, MINI_SWE_AGENT)
  assert report['turns_left_out'] == {'exit': 1}
