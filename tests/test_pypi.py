"""Files from wheels: fetched once, verified, and refused in one clear line."""

import concurrent.futures
import errno
import hashlib
import shutil
import zipfile

import pytest

from isft_jax import pypi

FACTS = b'capital,country\nParis,France\n'
DIGEST = hashlib.sha256(FACTS).hexdigest()


@pytest.fixture
def index(tmp_path, monkeypatch):
  """A package index on disk that has tiny-facts 1.0 and nothing else."""
  folder = tmp_path / 'index'
  folder.mkdir()
  info = 'tiny_facts-1.0.dist-info'
  with zipfile.ZipFile(folder / 'tiny_facts-1.0-py3-none-any.whl', 'w') as z:
    z.writestr('tiny_facts/facts.csv', FACTS)
    metadata = 'Metadata-Version: 2.1\nName: tiny-facts\nVersion: 1.0\n'
    z.writestr(f'{info}/METADATA', metadata)
    z.writestr(f'{info}/WHEEL', 'Wheel-Version: 1.0\nTag: py3-none-any\n')
    z.writestr(f'{info}/RECORD', '')
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  monkeypatch.setenv('PIP_CONFIG_FILE', '/dev/null')
  monkeypatch.setenv('PIP_NO_INDEX', '1')
  monkeypatch.setenv('PIP_FIND_LINKS', str(folder))
  return folder


def test_a_file_is_downloaded_once_by_two_that_want_it(index, monkeypatch):
  ask = ('tiny-facts==1.0', 'tiny_facts/facts.csv', DIGEST)
  downloads = []
  download = pypi._download
  monkeypatch.setattr(
    pypi, '_download', lambda *a: downloads.append(a) or download(*a)
  )
  with concurrent.futures.ThreadPoolExecutor(2) as pool:
    one, two = pool.map(lambda _: pypi.fetch(*ask), range(2))
  (index / 'tiny_facts-1.0-py3-none-any.whl').unlink()
  assert one == two == pypi.fetch(*ask)
  assert one.read_bytes() == FACTS
  assert len(downloads) == 1
  files = {path.name for path in pypi.cache_folder().rglob('*')}
  assert files == {'tiny-facts==1.0', DIGEST[:16], 'facts.csv', 'lock'}


@pytest.mark.parametrize(
  ('requirement', 'message'),
  [
    ('tiny-facts==2.0', r'==2.0: the index has other versions of it \(1\.0\)'),
    ('no-such==1.0', 'no-such==1.0: the package index does not have it'),
  ],
)
def test_a_package_that_the_index_lacks_is_an_error(
  index, requirement, message
):
  with pytest.raises(ValueError, match=message):
    pypi.fetch(requirement, 'tiny_facts/facts.csv', DIGEST)


@pytest.fixture
def no_pip(index, monkeypatch):
  """Takes the wheel without pip, which needs a second to start."""
  (wheel,) = index.glob('*.whl')
  monkeypatch.setattr(
    pypi, '_download', lambda _, folder: shutil.copy(wheel, folder / 'w.whl')
  )


@pytest.mark.parametrize(
  ('member', 'digest', 'message'),
  [
    ('tiny_facts/facts.csv', 'f' * 64, f'has sha256 {DIGEST}, not ffff'),
    ('no/such.csv', DIGEST, 'w.whl has no no/such.csv'),
  ],
)
def test_another_file_than_the_pinned_one_is_an_error(
  no_pip, member, digest, message
):
  with pytest.raises(ValueError, match=message):
    pypi.fetch('tiny-facts==1.0', member, digest)
  assert not list(pypi.cache_folder().rglob('*.csv'))


def test_a_damaged_file_is_fetched_again(no_pip):
  ask = ('tiny-facts==1.0', 'tiny_facts/facts.csv', DIGEST)
  pypi.fetch(*ask).write_bytes(FACTS[:-1])
  assert pypi.fetch(*ask).read_bytes() == FACTS


def test_a_missing_pip_is_an_error(index, monkeypatch):
  monkeypatch.setattr(pypi.importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(ValueError, match='run `python -m ensurepip`'):
    pypi.fetch('tiny-facts==1.0', 'tiny_facts/facts.csv', DIGEST)


NO_NETWORK = """\
WARNING: Retrying (Retry(total=1)) after connection broken by 'NewConnectionE'
ERROR: Could not find a version that satisfies the requirement a==1 (from \
versions: none)
"""
NO_SPACE = 'ERROR: Could not install: [Errno 28] No space left on device\n'


def test_pip_without_a_network_or_space(tmp_path):
  error = pypi._pip_error('a==1', NO_NETWORK, tmp_path)
  assert str(error).startswith(
    'a==1: the package index cannot be reached; check the network (pip: Could'
  )
  full = pypi._pip_error('a==1', NO_SPACE, tmp_path)
  assert (full.errno, full.filename) == (errno.ENOSPC, str(tmp_path))
