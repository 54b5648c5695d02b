"""A training killed at any step of writing a checkpoint is resumed, and ends as if it had never been interrupted."""
from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name('killed_training.py')
pytestmark = [pytest.mark.skipif(sys.platform != 'linux', reason='needs fork and limits of the size of files'),
              pytest.mark.xdist_group('killed')]  # one worker: the kills are shared


@pytest.fixture(scope='module')
def kills(tmp_path_factory) -> list[dict]:
    """What the script reports of each kill."""
    done = subprocess.run([sys.executable, str(SCRIPT), str(tmp_path_factory.mktemp('killed'))], text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=600, check=False)
    assert done.returncode == 0, done.stdout
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{')]


def of(kills: list[dict], how: str, hook: str = 'AtomicCheckpointHook') -> list[dict]:
    return [kill for kill in kills if kill['how'] == how and kill['hook'] == hook]


def assert_resumed(kill: dict) -> None:
    assert kill['resumed'] == 0 and kill['same'], kill
    assert not [name for name in kill['left'] if name.startswith('.')], 'what was half-written is removed'


def test_killed_before_every_operation_on_files(kills, count):
    *killed, finished = of(kills, 'operation')
    count('trainings killed (SIGKILL) before each operation on files of a save, then resumed', len(killed))
    assert len(killed) >= 9 and all(kill['killed'] == -9 for kill in killed) and finished['killed'] == 0
    for kill in (*killed, finished):
        assert_resumed(kill)
    # of before, of after, and none but these
    assert {kill['latest'] for kill in killed} == {'iter_2.pth', 'iter_3.pth'}


def test_killed_within_the_write(kills, count):
    killed = of(kills, 'byte')
    count('trainings killed in the middle of writing a checkpoint, then resumed', len(killed))
    for kill in killed:
        assert kill['killed'] < 0 and kill['latest'] == 'iter_2.pth'
        assert_resumed(kill)


def test_killed_at_any_time(kills, count):
    killed = of(kills, 'time')
    count('trainings killed (SIGKILL) at a random time, then resumed', len(killed))
    for kill in killed:
        assert_resumed(kill)


def test_what_it_is_for(kills):
    """mmengine's own hook has removed the checkpoint before, and its file is half-written."""
    kill, = of(kills, 'byte', 'CheckpointHook')
    assert kill['killed'] < 0 and kill['resumed'] != 0
