"""A server takes the model that --follow has accepted last."""

from isft_jax.serving.renewal import Renewal


class Moving:
  """A place, and the models that are loaded from it."""

  def __init__(self):
    self.place, self.loaded, self.lines = 'run/0000/checkpoints', [], []
    self.error = None

  def load(self):
    if self.error:
      raise self.error
    self.loaded.append(self.place)
    return self.place


def make():
  moving = Moving()
  return moving, Renewal(lambda: moving.place, moving.load, moving.lines.append)


def test_a_model_is_loaded_once_where_it_has_moved():
  moving, renew = make()
  assert renew() is None
  moving.place = 'run/0001/checkpoints'
  assert [renew(), renew()] == ['run/0001/checkpoints', None]
  moving.place = 'run/0003/checkpoints'
  assert [renew(), renew()] == ['run/0003/checkpoints', None]
  assert moving.loaded == ['run/0001/checkpoints', 'run/0003/checkpoints']
  assert moving.lines == [
    'replies come from run/0001 from now on',
    'replies come from run/0003 from now on',
  ]


def test_a_model_that_cannot_be_loaded_is_tried_again_and_said_once():
  moving, renew = make()
  moving.place, moving.error = 'run/0001/checkpoints', ValueError('damaged')
  assert [renew(), renew()] == [None, None]
  moving.error = None
  assert renew() == 'run/0001/checkpoints'
  assert moving.lines == [
    'warning: damaged; the model stays as it was',
    'replies come from run/0001 from now on',
  ]


def test_a_place_that_cannot_be_read_changes_nothing():
  moving, _ = make()
  places = iter(['a/checkpoints', OSError('no network'), 'a/checkpoints'])

  def place():
    found = next(places)
    if isinstance(found, Exception):
      raise found
    return found

  renew = Renewal(place, moving.load, moving.lines.append)
  assert [renew(), renew()] == [None, None]
  assert moving.lines == ['warning: no network; the model stays as it was']
  assert not moving.loaded
