import sys

import pytest

from dynconv_mm.compat.hints import explain


@pytest.mark.parametrize('error, advice', [
    (ModuleNotFoundError("No module named 'mmcv._ext'", name='mmcv._ext'), 'MMCV_WITH_OPS=1'),
    (FileNotFoundError(2, 'No such file', 'data/coco/annotations/instances_train2017.json'), 'data_root'),
    (FileNotFoundError('data/imagenet/train'), 'data/imagenet'),
])
def test_advice(error, advice):
    assert advice in explain(error)


@pytest.mark.parametrize('error', [FileNotFoundError('x.py'), ModuleNotFoundError('x', name='x'),
                                   ValueError('data/coco')])
def test_silent_about_others(error):
    assert explain(error) is None


def test_advice_follows_the_traceback(run):
    done = run(sys.executable, '-c', 'import dynconv_mm; open("data/coco/annotations/none.json")')
    assert done.returncode == 1
    assert done.stdout.index('Traceback') < done.stdout.index('dynconv_mm: the data set is not there')
